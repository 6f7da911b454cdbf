"""Plots: what is drawn, that it is the same each time, and that names cannot become anything else."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from deepscan.errors import UsageError
from deepscan.evaluation.curves import FPR_GRID, curves_of
from deepscan.evaluation.figures import Evaluation
from deepscan.evaluation.labels import LabeledResult, match_labels
from deepscan.evaluation.plots import TITLES, draw_plots, write_plots
from deepscan.evaluation.profiles import fit_profile
from deepscan.evaluation.svg import DARK, INK, PAINTS
from deepscan.evaluation.truth import Truth
from deepscan.results import VideoResult
from tests.evaluation.test_evaluate import COUNT, results, run, scored, scores, truth

NAMES = ("<script>alert(1)</script>", "_hidden", "$x^2$ \udcff\u202e", "n" * 255)
STYLE = re.compile(r"\bstyle=|<style|<metadata|<image|https?://(?!www\.w3\.org/2000/svg)")


def labels(count: int = COUNT) -> Truth:
    return truth(count, method=lambda number: NAMES[number // 2 % len(NAMES)], group=lambda number: f"g{number // 4}")


def evaluated(rows: list[VideoResult], known: Truth, **options: Any) -> tuple[Evaluation, tuple[LabeledResult, ...]]:
    return run(rows, known, **options), match_labels(rows, known).labeled


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def both() -> tuple[Evaluation, tuple[LabeledResult, ...]]:
    return evaluated(results() + results(shift=0.5, seed=1, model=NAMES[1]), labels())


@pytest.fixture(scope="module")
def drawn(both: tuple[Evaluation, tuple[LabeledResult, ...]]) -> dict[str, str]:
    return draw_plots(*both)


def test_all_plots_are_drawn_of_all_detectors_with_numbers_of_videos(drawn: dict[str, str]) -> None:
    assert list(drawn) == list(TITLES)
    for name in ("roc", "roc_log", "det", "precision_recall"):
        shown = " ".join(texts(drawn[name]))
        for detector in ("lite", NAMES[1]):
            assert f"{detector} (n = 30 fakes and 30 genuine, a small sample)" in shown
    assert {"lite", NAMES[1]} <= set(texts(drawn["auc"])) & set(texts(drawn["scores"]))


def test_names_are_text_and_nothing_else(drawn: dict[str, str]) -> None:
    for name in ("auc", "scores"):
        shown = " ".join(texts(drawn[name]))
        assert "<script>" in shown
        assert "$x^2$ \\udcff\\u202e" in shown
        assert "n" * 13 + "..." + "n" * 13 in shown
        assert "<script" not in drawn[name]


def test_plots_have_nothing_that_a_page_forbids_or_that_another_picture_has(drawn: dict[str, str]) -> None:
    identities: list[str] = []
    for svg in drawn.values():
        assert not STYLE.search(svg)
        own = re.findall(r'\bid="([^"]+)"', svg)
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg.replace("url(#", "url(#"))) <= {
            pair for each in own for pair in ((each, ""), ("", each))
        }
        identities += own
    assert len(identities) == len(set(identities))


def test_plots_are_the_same_each_time(
    both: tuple[Evaluation, tuple[LabeledResult, ...]], drawn: dict[str, str]
) -> None:
    assert draw_plots(*both) == drawn


def test_curves_are_those_of_scikit_learn_and_lie_within_their_bands(
    both: tuple[Evaluation, tuple[LabeledResult, ...]],
) -> None:
    lite, other = curves_of(both[1], count=100)
    for each in (lite, other):
        alarms, found, _ = roc_curve(each.fake, each.score, drop_intermediate=False)
        assert each.roc is not None
        assert each.roc_band is not None
        np.testing.assert_allclose(each.roc, (alarms, found), atol=1e-12)
        precision, recall, _ = precision_recall_curve(each.fake, each.score)
        assert each.precision_recall is not None
        kept = len(each.precision_recall[0])
        np.testing.assert_allclose(each.precision_recall, (recall[-2::-1][:kept], precision[-2::-1][:kept]), atol=1e-12)
        within = found[np.searchsorted(alarms, FPR_GRID, side="right") - 1]
        assert (each.roc_band.low <= within + 1e-12).all()
        assert (within <= each.roc_band.high + 1e-12).all()
        assert each.bins is not None
        assert each.bins.count.sum() == len(each.score)


def test_what_takes_two_classes_is_not_drawn_of_one_and_is_removed(tmp_path: Path) -> None:
    write_plots(*evaluated(results(), labels()), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(TITLES)
    genuine = [row for number, row in enumerate(results()) if number % 2]
    written = write_plots(*evaluated(genuine, labels()), tmp_path)
    assert {path.stem for path in written} == {"reliability", "scores"}
    assert set(tmp_path.iterdir()) == set(written)


def test_no_score_draws_nothing(tmp_path: Path) -> None:
    unscored = [scored(number, 0.5, status="no_face", label=None) for number in range(4)]
    assert write_plots(*evaluated(unscored, truth(4)), tmp_path / "new" / "folder") == ()


def test_a_file_of_somebody_else_is_kept(tmp_path: Path) -> None:
    other = tmp_path / "roc.svg"
    other.write_text("<svg>mine</svg>")
    with pytest.raises(UsageError, match=r"roc\.svg exists and was not written by deepscan: choose another folder"):
        write_plots(*evaluated(results(), labels()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["roc.svg"]
    assert other.read_text() == "<svg>mine</svg>"


def test_three_videos_and_twenty_methods_can_be_drawn() -> None:
    assert set(draw_plots(*evaluated(results()[:3], truth(3)))) == set(TITLES)
    many = truth(method=lambda number: f"method-with-a-long-name-{number // 2 % 20}")
    shown = texts(draw_plots(*evaluated(results(), many))["scores"])
    assert sum(text.startswith("method-with-a") for text in shown) == 20


def test_a_profile_shows_reliability_before_and_after() -> None:
    known = labels()
    found, labeled = evaluated(results(), known)
    profile = fit_profile(
        detector="lite",
        weights_sha256="ab",
        settings_sha256="cd",
        fake=np.array([each.truth.label == "fake" for each in labeled]),
        score=np.array(scores()),
        groups=[each.cluster for each in labeled],
    )
    shown = texts(draw_plots(found, labeled, profiles=[profile])["reliability"])
    assert {"before calibration", "after calibration"} <= set(shown)


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colors_stand_out_from_white_and_from_dark_paper() -> None:
    """WCAG's contrast of at least 4.5."""
    style = (files("deepscan.evaluation") / "page.css").read_text("utf-8")
    paper, dark = re.findall(r"--card: (#\w+)", style)[:2]
    for color in (INK, *PAINTS):
        assert (luminance(paper) + 0.05) / (luminance(color) + 0.05) > 4.5, color
        assert (luminance(DARK[color]) + 0.05) / (luminance(dark) + 0.05) > 4.5, color
