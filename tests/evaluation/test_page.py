"""The page: what stands in it, that names stay text, and that a browser shows it without a request or an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from deepscan.errors import OutputError, UsageError
from deepscan.evaluation.page import page_of, write_page
from tests.evaluation.test_evaluate import label_of, results, run, scored, truth
from tests.evaluation.test_plots import NAMES, evaluated, labels

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\udcff\u202e.mp4"
LONG = "n" * 251 + ".mp4"
MOST_BYTES = 1_500_000


class Page(HTMLParser):
    """Collect elements and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    """Two detectors, hostile names of detectors, methods, files and labels."""
    rows = results() + results(shift=0.5, seed=1, model=NAMES[0])
    paths = {"0.mp4": HOSTILE, "1.mp4": LONG}
    rows = [scored(row.index, row.score or 0.0, model=row.model, path=paths.get(row.path, row.path)) for row in rows]
    known = labels()
    named = [
        type(row)(path=paths.get(row.path, row.path), label=row.label, method=row.method, group=row.group)
        for row in known.rows
    ]
    source = type(known)(source=HOSTILE, layout="truth.csv", folder="/nowhere", rows=tuple(named))
    return page_of(*evaluated(rows, source))


def test_names_are_text(page: str) -> None:
    found = Page(page)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "base", "form"}
    for tag, attributes in found.elements:
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "style")}, tag
        assert (attributes.get("href") or "#").startswith("#")
    assert HOSTILE.replace("\udcff", "\\udcff").replace("\u202e", "\\u202e") in found.text
    assert LONG in found.text
    page.encode()  # no surrogate is left


def test_figures_plots_and_errors_stand_in_it(page: str) -> None:
    rows = results() + results(shift=0.5, seed=1, model=NAMES[0])
    found, text = run(rows, labels()), " ".join(Page(page).text.split())
    for each in found.detectors:
        auc = each.overall.figures["auc"]
        assert f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in text
        assert each.overall.caution in text
    for difference in found.differences:
        assert difference.sentence("auc") in text
    assert "60 videos with labels from" in text
    assert page.count('class="path"') == 2 * 40
    assert page.count("<svg") == 7
    assert f"95 %, by {found.resamples} resamples of whole groups, with seed 0" in text


def test_every_reference_leads_somewhere_and_ids_are_unique(page: str) -> None:
    elements = Page(page).elements
    identities = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    for _, attributes in elements:
        for name in ("href", "aria-labelledby"):
            if name in attributes:
                assert (attributes[name] or "").removeprefix("#") in identities


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder and collect what is asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def test_a_browser_shows_it_without_a_request_or_an_error(page: str, tmp_path: Path) -> None:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium here")
    site = tmp_path / "site"
    site.mkdir()
    (site / "page.html").write_text(page)
    # What a page must not have shows that the browser reports it.
    (site / "bad.html").write_text(page.replace("<main>", '<main style="color: red"><img src="/asked.png">'))
    with serving(site) as (address, asked):
        for name, clean in (("page.html", True), ("bad.html", False)):
            command = [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--disable-background-networking", "--no-first-run", "--enable-logging=stderr"),
                *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", f"{address}/{name}"),
            ]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, "HOME": str(tmp_path)}
            )
            console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
            assert "How often lite" in done.stdout
            assert bool(console) is not clean, console
        assert asked == ["/page.html", "/bad.html"]


def test_pages_do_not_grow_with_the_number_of_videos_and_parts() -> None:
    count = 10_000
    random = np.random.default_rng(0)
    drawn = 1 / (1 + np.exp(-random.normal(size=count) - np.where(np.arange(count) % 2, -1, 1)))
    rows = [scored(number, float(score), label=label_of(score)) for number, score in enumerate(drawn)]
    known = truth(count, method=lambda number: f"method {number // 2 % 100} of a hundred with a long name")
    made = page_of(*evaluated(rows, known, resamples=16))
    assert "60 further parts are left out here" in made
    assert len(made.encode()) < MOST_BYTES


@pytest.mark.parametrize("kind", [0, 1])
def test_one_class_alone_makes_a_page(kind: int) -> None:
    rows = [row for number, row in enumerate(results()) if number % 2 == kind]
    text = " ".join(Page(page_of(*evaluated(rows, truth()))).text.split())
    assert f"none: there is no {'genuine video' if kind == 0 else 'fake'}" in text


def test_three_videos_without_one_score_make_a_page() -> None:
    rows = [scored(number, 0.5, status="no_face", label=None) for number in range(3)]
    made = page_of(*evaluated(rows, truth(3)))
    assert "3 no_face" in made
    assert "<svg" not in made


def test_pages_are_written_whole_over_pages_alone(tmp_path: Path) -> None:
    one = evaluated(results()[:4], truth(4))
    target = tmp_path / "page.html"
    write_page(*one, target)
    first = target.read_bytes()
    write_page(*one, target)
    assert target.read_bytes() == first
    target.write_text("<p>mine")
    with pytest.raises(UsageError, match=r"page\.html exists and was not written by deepscan: choose another path"):
        write_page(*one, target)
    with pytest.raises(OutputError, match="cannot be written"):
        write_page(*one, tmp_path / "missing" / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_modules_load_neither_matplotlib_nor_jinja_before_they_draw() -> None:
    code = "import sys, deepscan.evaluation.page; print(sorted({'matplotlib', 'jinja2', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_styles_use_nothing_from_elsewhere(page: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url\(|@import|expression", style)
