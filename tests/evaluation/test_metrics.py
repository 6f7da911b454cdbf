"""Every figure against scikit-learn's, with ties, weights and one class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from deepscan.evaluation.metrics import CONFUSION, ECE_BINS, FPRS, NAMES, PLACE, PROBABILITY, RANKING, Floats, Sample

TOLERANCE = 1e-12
Case = tuple[np.ndarray[Any, Any], Floats, np.ndarray[Any, Any], Floats]


@st.composite
def cases(draw: st.DrawFn, *, both: bool = True) -> Case:
    """Truth, scores with many ties, called labels and weights of which some are zero."""
    count = draw(st.integers(2, 40))
    levels = draw(st.sampled_from([2, 5, 1000]))
    column = st.lists(st.integers(0, levels), min_size=count, max_size=count)
    score = np.array(draw(column)) / levels
    fake = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    called = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    weights = np.array(draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=count, max_size=count)))
    if both:
        fake[:2], weights[:2] = [True, False], 1.0
    return fake, score, called, weights


def figures(case: Case) -> dict[str, float]:
    fake, score, called, weights = case
    return dict(zip(NAMES, Sample(fake, score, called).figures(weights[None])[0].tolist(), strict=True))


def equal_error_rate(false: Floats, true: Floats) -> float:
    """Return where the lines of an ROC curve cross that of equal errors, segment by segment."""
    for number in range(1, len(false)):
        before, after = (false[at] + true[at] - 1 for at in (number - 1, number))
        if before < 0 <= after:
            return float(false[number - 1] + before / (before - after) * (false[number] - false[number - 1]))
    raise AssertionError("the curve ends in the upper right corner")


@given(cases())
def test_figures_are_those_of_scikit_learn(case: Case) -> None:
    fake, score, called, weights = case
    found = figures(case)
    false, true, _ = sk.roc_curve(fake, score, sample_weight=weights, drop_intermediate=False)
    confusion = sk.confusion_matrix(~fake * 2, called, labels=[0, 1, 2], sample_weight=weights)
    expected = {
        "auc": sk.roc_auc_score(fake, score, sample_weight=weights),
        "average_precision": sk.average_precision_score(fake, score, sample_weight=weights),
        "eer": equal_error_rate(false, true),
        "brier": sk.brier_score_loss(fake, score, sample_weight=weights),
        "log_loss": sk.log_loss(fake, score, sample_weight=weights, labels=[False, True]),
        "balanced_accuracy": sk.balanced_accuracy_score(fake, called == 0, sample_weight=weights),
    }
    expected |= {name: true[false <= limit].max() for name, limit in FPRS.items()}
    shares = np.concatenate([confusion[0] / confusion[0].sum(), confusion[2] / confusion[2].sum()])
    expected |= dict(zip(CONFUSION, shares, strict=True))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=TOLERANCE), name


@given(cases())
def test_the_calibration_error_is_that_of_scikit_learns_curve(case: Case) -> None:
    fake, score, called, _ = case
    observed, predicted = calibration_curve(fake, score, n_bins=ECE_BINS)
    edges = np.linspace(0, 1, ECE_BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], score))
    expected = np.sum(counts[counts > 0] * np.abs(observed - predicted)) / len(fake)
    assert figures((fake, score, called, np.ones(len(fake))))["ece"] == pytest.approx(expected, abs=TOLERANCE)


@given(cases())
def test_whole_weights_are_repetitions(case: Case) -> None:
    fake, score, called, weights = case
    counts = np.ceil(weights).astype(int)
    repeated = tuple(np.repeat(column, counts) for column in (fake, score, called))
    once = Sample(*repeated).figures(np.ones((1, counts.sum())))[0]
    assert Sample(fake, score, called).figures(counts[None].astype(float))[0] == pytest.approx(once, abs=TOLERANCE)


@given(cases())
def test_many_weightings_at_once_are_those_one_by_one(case: Case) -> None:
    fake, score, called, weights = case
    sample = Sample(fake, score, called)
    several = np.stack([weights, np.ones(len(fake)), np.roll(weights, 1) + 0.5])
    one_by_one = np.concatenate([sample.figures(each[None]) for each in several])
    np.testing.assert_allclose(sample.figures(several), one_by_one, atol=TOLERANCE)


@given(cases())
def test_weights_of_groups_are_those_of_their_videos(case: Case) -> None:
    fake, score, called, weights = case
    units = np.arange(len(fake)) % 5
    by_group = Sample(fake, score, called, units).figures(weights[None, :5] + 1 if len(fake) > 4 else np.ones((1, 5)))
    of_videos = (weights[:5] + 1 if len(fake) > 4 else np.ones(5))[units]
    np.testing.assert_allclose(by_group, Sample(fake, score, called).figures(of_videos[None]), atol=TOLERANCE)


@pytest.mark.parametrize("kind", [True, False])
def test_one_class_has_the_figures_that_need_one_and_reasons_for_the_rest(kind: bool) -> None:
    fake = np.full(3, kind)
    sample = Sample(fake, np.array([0.1, 0.5, 0.9]), np.array([2, 1, 0]))
    found = dict(zip(NAMES, sample.figures(np.ones((1, 3)))[0], strict=True))
    said = "there is no genuine video" if kind else "there is no fake"
    for name in (*RANKING, "balanced_accuracy"):
        assert math.isnan(found[name])
        assert sample.undefined(name) == said
    for name in PROBABILITY:
        assert found[name] >= 0
        assert sample.undefined(name) == ""
    own, other = ("fake", "real") if kind else ("real", "fake")
    assert found[f"{own}_called_fake"] == pytest.approx(1 / 3)
    assert math.isnan(found[f"{other}_called_fake"])
    assert sample.undefined(f"{other}_called_real") == said


def test_no_video_at_all_has_no_figure() -> None:
    sample = Sample(np.array([], dtype=bool), np.array([]), np.array([], dtype=int))
    assert np.isnan(sample.figures(np.ones((2, 3)))).all()
    assert {sample.undefined(name) for name in NAMES} == {"there is no scored video"}


def test_videos_without_a_score_are_the_worst_errors() -> None:
    fake = np.array([True, True, False, False])
    sample = Sample(fake, np.array([0.9, np.nan, 0.0, np.nan]), np.array([0, 0, 2, 2]))
    found = dict(zip(NAMES, sample.figures(np.ones((1, 4)))[0], strict=True))
    assert found["auc"] == 0.25  # of four pairs only that of the two scores is in order
    assert found["brier"] == pytest.approx((0.01 + 1 + 0 + 1) / 4)
    assert (found["fake_called_real"], found["real_called_fake"], found["balanced_accuracy"]) == (0.5, 0.5, 0.5)
    assert math.isnan(found["log_loss"])
    assert sample.undefined("ece") == "videos without a score have none"


def test_scores_of_zero_and_one_have_a_finite_log_loss() -> None:
    sample = Sample(np.array([True, False]), np.array([0.0, 1.0]), np.array([2, 0]))
    assert sample.figures(np.ones((1, 2)))[0, PLACE["log_loss"]] == pytest.approx(-math.log(np.finfo(float).eps))


@pytest.mark.parametrize("count", [1, 7, 64])
def test_bisection_finds_what_a_search_along_the_curve_finds(count: int) -> None:
    random = np.random.default_rng(count)
    fake = np.arange(count + 1) % 2 == 0
    score = random.random(count + 1)
    false, true, _ = sk.roc_curve(fake, score, drop_intermediate=False)
    found = Sample(fake, score, np.zeros(count + 1, dtype=int)).figures(np.ones((1, count + 1)))[0]
    best: Callable[[float], float] = lambda limit: float(true[false <= limit].max())  # noqa: E731
    assert [found[PLACE[name]] for name in FPRS] == [best(limit) for limit in FPRS.values()]
