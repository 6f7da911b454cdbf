"""Intervals: what is drawn, and how often they hold the true figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from deepscan.evaluation.bootstrap import Clusters, _t_quantile, clusters_of, interval, resamples
from deepscan.evaluation.metrics import PLACE, Booleans, Floats, Integers, Sample


def drawn(clusters: Clusters, count: int = 100, seed: int = 0) -> Floats:
    return np.concatenate(list(resamples(clusters, count, seed)))


def test_each_stratum_is_drawn_as_often_as_it_has_groups() -> None:
    names = ["a", "a", "b", "c", "c", "d", "e", "f"]
    fake = np.array([True, False, True, False, False, True, True, False])
    clusters = clusters_of(names, fake)
    assert (clusters.count, clusters.of_video.tolist()) == (6, [0, 0, 1, 2, 2, 3, 4, 5])
    assert [stratum.tolist() for stratum in clusters.strata] == [[2, 5], [1, 3, 4], [0]]
    weights = drawn(clusters)
    for stratum in clusters.strata:
        assert (weights[:, stratum].sum(1) == len(stratum)).all()
    assert weights[:, 3].std() > 0.5
    assert clusters.smaller_class(np.arange(8), fake) == 3
    assert clusters.smaller_class(np.array([0, 2, 3, 4]), fake[[0, 2, 3, 4]]) == 1
    assert clusters.smaller_class(np.array([0, 2]), fake[[0, 2]]) == 2


def test_the_same_seed_draws_the_same_and_another_something_else() -> None:
    clusters = clusters_of([str(number) for number in range(30)], np.arange(30) % 2 == 0)
    assert (drawn(clusters) == drawn(clusters)).all()
    assert (drawn(clusters, seed=1) != drawn(clusters)).any()
    assert (drawn(clusters, 32) == drawn(clusters, 100)[:32]).all()


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 50, 1000])
def test_quantiles_of_the_t_distribution_are_those_of_scipy(freedom: int) -> None:
    assert _t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.01)


def test_intervals_of_means_are_those_of_the_t_distribution() -> None:
    values = np.random.default_rng(3).normal(size=12)
    clusters = clusters_of([str(number) for number in range(12)], np.ones(12, dtype=bool))
    means = np.concatenate([weights @ values / 12 for weights in resamples(clusters, 20_000)])
    found = interval(means, 12, share=False)
    assert found == pytest.approx(stats.t.interval(0.95, 11, values.mean(), stats.sem(values)), abs=0.08)


def test_draws_that_say_nothing_give_the_bound_of_a_proportion() -> None:
    ends = stats.binomtest(10, 10).proportion_ci(method="exact")
    assert interval(np.ones(100), 10) == pytest.approx((ends.low, ends.high))
    assert interval(np.zeros(100), 10) == pytest.approx((1 - ends.high, 1 - ends.low))
    assert interval(np.zeros(100), 10, share=False) == (0.0, 0.0)


def test_no_interval_is_made_of_one_group_or_of_missing_figures() -> None:
    assert interval(np.random.default_rng(0).random(100), 1) is None
    assert interval(np.full(100, math.nan), 30) is None
    some = np.where(np.arange(100) < 60, 0.5, math.nan)
    assert interval(some, 30) == (0.5, 0.5)


def test_the_interval_of_a_figure_that_chance_makes_larger_is_reflected() -> None:
    draws = np.linspace(0.1, 0.3, 1001)
    plain, reflected = interval(draws, 1000), interval(draws, 1000, biased=0.15)
    assert plain is not None
    assert reflected == pytest.approx((max(0.3 - plain[1], 0.0), 0.3 - plain[0]))


def clustered(random: np.random.Generator, groups: int) -> tuple[Integers, Booleans, Floats]:
    """Return group, truth and score of videos in groups of 1 to 20, a quarter of which have both classes."""
    group = np.repeat(np.arange(groups), random.integers(1, 21, groups))
    kind = np.where(np.arange(groups) % 4 == 3, 2, np.arange(groups) % 2)[group]
    fake = np.where(kind == 2, random.random(len(group)) < 0.5, kind == 1)
    logit = fake - 0.5 + random.normal(size=groups)[group] + random.normal(size=len(group))
    return group, fake, 1 / (1 + np.exp(-logit))


def figures_of(group: Integers, fake: Booleans, score: Floats, count: int, seed: int) -> tuple[Floats, Clusters]:
    """Return the figures in each resample; in the first row, those without any."""
    clusters = clusters_of([str(number) for number in group], fake)
    called = np.where(score >= 0.7, 0, np.where(score < 0.3, 2, 1))
    sample = Sample(fake, score, called, clusters.of_video)
    once = [np.ones((1, clusters.count))] if count == 0 else resamples(clusters, count, seed)
    return np.concatenate([sample.figures(weights) for weights in once]), clusters


def covered(trials: int, groups: int, count: int, names: tuple[str, ...]) -> dict[str, float]:
    """Return how often intervals hold the figure of all videos that there could be."""
    random = np.random.default_rng(7)
    truth = np.mean([figures_of(*clustered(random, 5000), 0, 0)[0][0] for _ in range(6)], axis=0)
    hits = dict.fromkeys(names, 0)
    for trial in range(trials):
        group, fake, score = clustered(random, groups)
        draws, clusters = figures_of(group, fake, score, count, trial)
        for name in names:
            place = PLACE[name]
            ends = interval(draws[:, place], clusters.smaller_class(np.arange(len(fake)), fake))
            hits[name] += ends is not None and ends[0] <= truth[place] <= ends[1]
    return {name: hit / trials for name, hit in hits.items()}


def test_intervals_hold_the_true_figure_about_as_often_as_they_say() -> None:
    found = covered(100, 60, 200, ("auc", "brier"))
    assert all(0.88 <= share <= 1.0 for share in found.values()), found  # 95 +- 3 standard errors of 100 trials


def test_intervals_over_single_videos_of_groups_would_be_too_narrow() -> None:
    group, fake, score = clustered(np.random.default_rng(1), 60)
    place = PLACE["auc"]
    widths = []
    for names in (group, np.arange(len(fake))):
        draws, clusters = figures_of(names, fake, score, 300, 0)
        ends = interval(draws[:, place], clusters.smaller_class(np.arange(len(fake)), fake))
        assert ends is not None
        widths.append(ends[1] - ends[0])
    assert widths[0] > 1.5 * widths[1]


@pytest.mark.slow
@pytest.mark.parametrize("groups", [40, 80, 200])
def test_the_coverage_of_intervals_is_93_to_97_percent(groups: int) -> None:
    names = ("auc", "average_precision", "eer", "brier", "log_loss", "balanced_accuracy", "tpr_at_fpr_10%")
    found = covered(2000, groups, 500, names)
    assert all(0.93 <= share <= 0.97 for share in found.values()), found
