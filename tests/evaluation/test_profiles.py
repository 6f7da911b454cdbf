"""Calibration profiles, thresholds with a promised rate of false alarms, and fusion, with scikit-learn and scipy."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss

from deepscan.errors import UsageError
from deepscan.evaluation.fusion import FittedFusion, fit_fusion
from deepscan.evaluation.metrics import Booleans, Floats
from deepscan.evaluation.profiles import FittedProfile, cross_fitted, fit_profile, folds_by_group, write_profile
from deepscan.evaluation.thresholds import genuine_needed, threshold_at, upper_bound
from deepscan.profiles import Isotonic, Platt, at_prevalence, logit, read_fusion, read_profile, sigmoid

Videos = tuple[Booleans, Floats, list[str]]


def videos(count: int = 400, seed: int = 0, scale: float = 2.0, offset: float = 1.5, groups: int = 100) -> Videos:
    """Return truth, scores that are too sure and too high, and groups; half of the videos are fake."""
    random = np.random.default_rng(seed)
    fake = np.arange(count) % 2 == 0
    honest = random.normal(size=count) + np.where(fake, 0.5, -0.5)  # log-odds of which the probability is right
    return fake, sigmoid(scale * honest + offset), [f"g{number % groups}" for number in range(count)]


def profile_of(found: Videos, **options: Any) -> FittedProfile:
    fake, score, groups = found
    names = {"detector": "lite", "weights_sha256": "ab" * 32, "settings_sha256": "cd" * 32}
    return fit_profile(fake=fake, score=score, groups=groups, **{**names, **options})


def test_platt_undoes_what_is_wrong_with_the_scores_and_the_evidence_is_cross_fitted() -> None:
    found = videos(4000)
    profile = profile_of(found, method="platt")
    assert isinstance(profile.calibration, Platt)
    assert profile.calibration.scale == pytest.approx(0.5, abs=0.05)
    assert profile.calibration.offset == pytest.approx(-0.75, abs=0.1)
    assert profile.after.ece.value is not None
    assert profile.before.ece.value is not None
    assert profile.after.ece.value < 0.03 < 0.1 < profile.before.ece.value
    assert profile.after.brier.low is not None
    assert profile.after.brier.high is not None
    assert profile.before.brier.value is not None
    assert profile.after.brier.low < profile.after.brier.high < profile.before.brier.value
    assert sum(count for _, _, count in profile.after.bins) == 4000
    assert all(abs(mean - share) < 0.1 for mean, share, count in profile.after.bins if count > 100)


def test_a_fit_that_has_seen_the_video_is_not_its_evidence() -> None:
    """Labels by chance: isotonic regression follows them in what it saw, and is no better than a coin elsewhere."""
    random = np.random.default_rng(2)
    fake, score = random.random(400) < 0.5, random.random(400)
    groups = [str(number) for number in range(400)]
    crossed = cross_fitted(fake, score, folds_by_group(fake, groups), "isotonic")
    assert brier_score_loss(fake, crossed) > 0.25


def test_folds_keep_groups_together_and_have_both_classes() -> None:
    fake, _, groups = videos(90, groups=9)
    folds = folds_by_group(fake, groups)
    assert len(set(folds)) == 5
    for group in set(groups):
        assert len({fold for fold, name in zip(folds, groups, strict=True) if name == group}) == 1
    sorted_groups = [f"f{number}" if fake[number] else f"r{number}" for number in range(90)]
    folds = folds_by_group(fake, sorted_groups)
    assert all(0 < fake[folds == fold].mean() < 1 for fold in set(folds))
    with pytest.raises(UsageError, match="at least two groups"):
        folds_by_group(fake, ["one" if kind else str(number) for number, kind in enumerate(fake)])


def test_isotonic_is_chosen_only_with_enough_videos_and_where_it_is_better() -> None:
    with pytest.raises(UsageError, match="needs 1000 videos, and there are 400"):
        profile_of(videos(400), method="isotonic")
    assert isinstance(profile_of(videos(400)).calibration, Platt)
    fake, score, groups = videos(4000, scale=1.0, offset=0.0)
    steps = np.where(score < 0.5, score * 0.02, 0.98 + score * 0.02)  # no logistic curve undoes this
    chosen = profile_of((fake, steps, groups)).calibration
    assert isinstance(chosen, Isotonic)
    probability = chosen.probability(np.linspace(0, 1, 101))
    assert all(before <= after for before, after in pairwise(probability))
    assert probability.min() >= 0
    assert probability.max() <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prevalence": 0.0}, "prevalence must be a number between 0 and 1"),
        ({"max_fpr": 1.0}, "max_fpr must be a number between 0 and 1"),
        (
            {"max_fpr": 0.01},
            r"0\.01 needs 299 groups of genuine videos with a score, and there are 50: 249 are missing",
        ),
    ],
)
def test_what_cannot_be_promised_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        profile_of(videos(400), **options)


def test_too_few_videos_of_a_class_are_refused() -> None:
    fake, score, groups = videos(400)
    kept = np.flatnonzero(~fake | (np.arange(400) < 10))
    said = "at least 10 fakes and 10 genuine videos with a score, and there are 5 and 200"
    with pytest.raises(UsageError, match=said):
        profile_of((fake[kept], score[kept], [groups[number] for number in kept]))


def test_scores_that_say_the_opposite_are_not_calibrated() -> None:
    fake, score, groups = videos(400)
    with pytest.raises(UsageError, match="are no higher for fakes than for genuine videos here"):
        profile_of((~fake, score, groups))


def test_a_prevalence_moves_probabilities_as_bayes_says() -> None:
    probability = np.array([0.0, 0.5, 0.9, 1.0])
    rare = at_prevalence(probability, 0.5, 0.01)
    assert rare == pytest.approx([0.0, 0.01, 0.9 * 0.01 / (0.9 * 0.01 + 0.1 * 0.99), 1.0])
    assert at_prevalence(rare, 0.01, 0.5) == pytest.approx(probability)
    plain, rarer = profile_of(videos()), profile_of(videos(), prevalence=0.01)
    score = np.array([0.2, 0.8, 0.99])
    assert rarer.probability(score) == pytest.approx(at_prevalence(plain.probability(score), 0.5, 0.01))
    assert (rarer.probability(score) < plain.probability(score)).all()


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 299), (0.05, 59), (0.001, 2995)])
def test_promises_need_as_many_genuine_videos_as_clopper_and_pearson_say(rate: float, needed: int) -> None:
    assert genuine_needed(rate) == needed
    assert upper_bound(0, needed) <= rate < upper_bound(0, needed - 1)


@pytest.mark.parametrize(("alarms", "count"), [(0, 10), (3, 50), (10, 10), (9, 10)])
def test_the_bound_is_that_of_scipy(alarms: int, count: int) -> None:
    expected = stats.binomtest(alarms, count, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(alarms, count) == pytest.approx(expected, abs=1e-12)


def test_a_group_counts_as_one_genuine_video() -> None:
    probability = np.linspace(0, 0.9, 120)
    with pytest.raises(UsageError, match="needs 59 groups of genuine videos with a score, and there are 40: 19 are"):
        threshold_at(probability, [str(number // 3) for number in range(120)], 0.05)
    single = threshold_at(probability, [str(number) for number in range(120)], 0.05)
    assert (single.false_alarms, single.genuine, single.groups) == (1, 120, 120)
    assert single.upper == pytest.approx(upper_bound(1, 120))
    assert single.upper <= 0.05 < upper_bound(2, 120)
    grouped = threshold_at(probability, [str(number // 2) for number in range(120)], 0.05)
    assert grouped.fake_from > single.fake_from
    assert (grouped.false_alarms, grouped.groups) == (0, 60)


def test_genuine_videos_that_all_have_the_highest_probability_allow_no_threshold() -> None:
    with pytest.raises(UsageError, match="No threshold has a rate of false alarms of"):
        threshold_at(np.ones(100), [str(number) for number in range(100)], 0.05)


@pytest.mark.parametrize("count", [59, 200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_promised_rate_holds_in_95_percent_of_draws(count: int) -> None:
    """Scores of genuine videos are uniform, so that the true rate at a threshold is known."""
    random = np.random.default_rng(count)
    names = [str(number) for number in range(count)]
    trials = 600
    rates = [1 - threshold_at(random.random(count), names, 0.05).fake_from for _ in range(trials)]
    held = np.mean(np.array(rates) <= 0.05)
    assert held >= 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5
    assert held < 0.99  # a promise that always holds would give away fakes


def test_the_threshold_of_a_profile_is_that_of_its_probabilities() -> None:
    fake, score, groups = videos(800, groups=800)
    profile = profile_of((fake, score, groups), max_fpr=0.05, prevalence=0.1)
    threshold = profile.threshold
    assert threshold is not None
    alarms = profile.probability(score[~fake]) >= threshold.fake_from
    assert alarms.sum() == threshold.false_alarms > 5
    assert threshold.upper <= 0.05


def test_profiles_are_kept_as_json_and_bound_to_what_they_were_made_for(tmp_path: Path) -> None:
    profile = profile_of(videos(400), prevalence=0.1, labels="truth.csv")
    path = tmp_path / "profile.json"
    write_profile(profile, path)
    assert msgspec.json.decode(path.read_bytes(), type=FittedProfile) == profile
    assert read_profile(path).sha256 == profile.sha256
    assert read_profile(path).sha256 != profile_of(videos(400), prevalence=0.2, labels="truth.csv").sha256
    assert json.loads(path.read_text())["detector"] == "lite"
    profile.refuse_other("lite", "ab" * 32, "cd" * 32)
    for other in (("recce", "ab" * 32, "cd" * 32), ("lite", "00", "cd" * 32), ("lite", "ab" * 32, "00")):
        with pytest.raises(UsageError, match=r"calibrate (anew )?with results of .* or leave it out"):
            profile.refuse_other(*other)
    with pytest.raises(UsageError, match="No such file"):
        read_profile(tmp_path / "none.json")
    for text in ("", "[]", path.read_text().replace('"schema": 1', '"schema": 2')):
        path.write_text(text)
        with pytest.raises(UsageError, match="is no calibration profile"):
            read_profile(path)


def detectors(count: int, *, independent: bool, seed: int = 0) -> tuple[Booleans, dict[str, Floats], list[str]]:
    """Return two detectors that see different things, or one of which repeats the other with noise."""
    random = np.random.default_rng(seed)
    fake = np.arange(count) % 2 == 0
    shift = np.where(fake, 1.0, -1.0)
    one = random.normal(size=count) + shift
    other = random.normal(size=count) + (shift if independent else one)
    return fake, {"one": sigmoid(one), "other": sigmoid(other)}, [str(number // 2) for number in range(count)]


def fused(count: int, *, independent: bool) -> FittedFusion:
    fake, scores, groups = detectors(count, independent=independent)
    profiles = [profile_of((fake, scores[name], groups), detector=name) for name in scores]
    return fit_fusion(profiles, fake=fake, scores=scores, groups=groups)


def test_detectors_that_see_different_things_are_better_together(tmp_path: Path) -> None:
    fusion = fused(600, independent=True)
    assert fusion.evidence.better
    assert fusion.evidence.sentence.startswith("The fusion is better than ")
    assert [subset.detectors for subset in fusion.subsets] == [("one",), ("other",), ("one", "other")]
    write_profile(fusion, tmp_path / "fusion.json")
    again = msgspec.json.decode((tmp_path / "fusion.json").read_bytes(), type=FittedFusion)
    assert (again.subsets, again.evidence) == (fusion.subsets, fusion.evidence)
    assert read_fusion(tmp_path / "fusion.json").sha256 == fusion.sha256
    (tmp_path / "fusion.json").write_text("{}")
    with pytest.raises(UsageError, match="is no fusion"):
        read_fusion(tmp_path / "fusion.json")
    sure = fusion.probability({"one": 0.9, "other": 0.9})
    alone = fusion.probability({"one": 0.9, "other": None})
    assert sure is not None
    assert alone is not None
    assert sure > alone > 0.5
    assert fusion.probability({"third": 0.9}) is None


def test_a_detector_that_repeats_another_is_not_shown_to_help() -> None:
    fusion = fused(600, independent=False)
    assert fusion.evidence.best == "one"
    assert not fusion.evidence.better
    assert fusion.evidence.sentence.startswith("The fusion is not shown to be better than one alone")


def test_a_fusion_needs_videos_that_all_detectors_have_scored() -> None:
    fake, scores, groups = detectors(100, independent=True)
    profiles = [profile_of((fake, scores[name], groups), detector=name) for name in scores]
    missing = scores | {"other": np.where(np.arange(100) < 90, np.nan, scores["other"])}
    with pytest.raises(UsageError, match="have all scored, and there are 5 and 5"):
        fit_fusion(profiles, fake=fake, scores=missing, groups=groups)
    with pytest.raises(UsageError, match="takes from 2 to 6 detectors, each once, not one"):
        fit_fusion(profiles[:1], fake=fake, scores=scores, groups=groups)


def test_log_odds_and_probabilities_are_each_others_inverse_and_finite() -> None:
    score = np.array([0.0, 1e-6, 0.3, 1.0])
    assert np.isfinite(logit(score)).all()
    assert sigmoid(logit(score)) == pytest.approx(score, abs=2e-6)
    assert sigmoid(np.array([-1e4, 1e4])).tolist() == [0.0, 1.0]
