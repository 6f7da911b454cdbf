"""What the documents refer to is there, and what they print works as printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas
import pytest

from deepscan.arguments import option_fields
from deepscan.limits import Limits
from deepscan.naming import in_callers_words
from deepscan.options import ScanOptions
from tests.cli.console import deepscan
from tests.footage import NO_FACE, SWAPPED

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(path for folder in (".", "docs", "benchmarks", "examples") for path in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors_of(path), target


def has_sandbox() -> bool:
    """Tell whether bubblewrap is installed and may make the namespaces that the document's command asks for."""
    program = shutil.which("bwrap")
    if program is None:
        return False
    return subprocess.run([program, "--unshare-all", "--ro-bind", "/", "/", "true"], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not has_sandbox(), reason="bubblewrap is not installed, or namespaces are forbidden")
def test_the_sandbox_of_the_security_page_works_as_printed() -> None:
    (lines,) = re.findall(
        r"^  ```\n(.*?)^  ```$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE | re.DOTALL
    )
    if any(Path(place).is_relative_to("/tmp") for place in (ROOT, sys.prefix)):
        pytest.skip("what lies in /tmp is not seen inside")
    folder = Path(os.environ.get("HOME", "/")) / ".deepscan-sandbox-test"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "incoming").mkdir(parents=True)
        (folder / "bin").mkdir()
        shutil.copy(NO_FACE, folder / "incoming")
        (folder / "bin" / "deepscan").write_text(
            f"#!/bin/sh\nexport PYTHONPATH={ROOT}\n"
            f"exec {sys.executable} -c 'from deepscan.cli.main import main; main()' \"$@\"\n"
        )
        (folder / "bin" / "deepscan").chmod(0o755)
        environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
        ran = subprocess.run(
            ["sh", "-c", lines], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert "no_face" in (folder / "results" / "results.csv").read_text()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_the_recipe_for_pandas_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe,) = re.findall(
        r"^## pandas\n\n((?:    .*\n|\n)+)", (ROOT / "docs" / "recipes.md").read_text(), re.MULTILINE
    )
    arguments = ("--frames", "5", "--out", "results.csv", "--per-frame", "frames.parquet")
    assert deepscan("scan", SWAPPED, NO_FACE, *arguments, cwd=tmp_path).code == 0
    monkeypatch.chdir(tmp_path)
    with pandas.option_context("display.max_colwidth", None, "display.width", 1000):  # however deep the repository lies
        exec(textwrap.dedent(recipe), {})
    printed = capsys.readouterr().out
    assert printed.count(str(NO_FACE)) == 1
    assert len(re.findall(rf"^\d+ +.*{SWAPPED.name[-8:]}.* 0\.[89]\d+$", printed, re.MULTILINE)) == 3


def test_the_keywords_of_the_api_page_are_those_of_the_options() -> None:
    """The table is what this builds: paste it from the message where it differs."""
    lines = ["| keyword | default | meaning |", "|---|---|---|"]
    for struct, prefix in ((ScanOptions, ""), (Limits, "limits.")):
        for each in option_fields(struct):
            meaning = in_callers_words(each.option.help)
            meaning = meaning.replace("May be repeated.", "One or several.")
            meaning = meaning.replace("in MiB", "in bytes" if each.option.unit != 1 else "in MiB")
            meaning = meaning.replace("0: no", "None: no" if each.option.zero_is_none else "None or 0: no")
            default = each.option.shown_default or ("none" if each.default in (None, ()) else str(each.default))
            lines.append(f"| `{prefix}{each.name}` | {default} | {meaning} |")
    assert "\n".join(lines) in (ROOT / "docs" / "api.md").read_text(), "\n" + "\n".join(lines)
