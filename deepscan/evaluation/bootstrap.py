"""Intervals by a stratified cluster bootstrap: whole groups of videos are drawn again, not single videos.

Videos of one person or of one source are not independent, so that intervals over single videos would be too narrow.
Groups with genuine videos only, with fakes only and with both are strata, of each of which as many are drawn as there
are. All detectors get the same draws, which makes their differences paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import pi, sqrt, tan
from statistics import NormalDist
from typing import Final

import numpy as np

from deepscan.evaluation.metrics import Booleans, Floats, Integers

RESAMPLES: Final = 2000
CHUNK: Final = 16  # resamples at once: what is computed for them stays in the processor's cache
COVERAGE: Final = 0.95
SMALL: Final = 20  # fewer groups than this of either class make a rough interval


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups of videos.

    Attributes:
        of_video: number of the group of each video, [N].
        strata: numbers of the groups of each stratum.
        count: number of groups, U.
    """

    of_video: Integers
    strata: tuple[Integers, ...]
    count: int

    def smaller_class(self, videos: Integers, fake: Booleans) -> int:
        """Return in how many groups the rarer class is, among some videos; a class that is not there does not count.

        Args:
            videos: numbers of the videos, [M].
            fake: whether each of them is fake, [M].
        """
        units = self.of_video[videos]
        counts = [len(np.unique(units[fake == kind])) for kind in (True, False)]
        return min((count for count in counts if count), default=0)


def clusters_of(names: Sequence[str], fake: Booleans) -> Clusters:
    """Return the groups of videos with these names of groups, [N]."""
    _, numbers = np.unique(np.array(names, dtype=object), return_inverse=True)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    with_fakes, with_genuine = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    with_fakes[numbers[fake]] = True
    with_genuine[numbers[~fake]] = True
    kinds = with_fakes * 2 + with_genuine
    strata = tuple(np.flatnonzero(kinds == kind) for kind in (1, 2, 3))
    return Clusters(numbers.astype(np.int64), tuple(part for part in strata if len(part)), count)


def resamples(clusters: Clusters, count: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """Yield how often each group is drawn, [R, U], for R resamples at a time, `count` in all."""
    generator = np.random.default_rng(seed)
    for start in range(0, count, CHUNK):
        number = min(CHUNK, count - start)
        weights = np.zeros((number, clusters.count))
        for groups in clusters.strata:
            size = len(groups)
            drawn = generator.integers(size, size=(number, size)) + np.arange(number)[:, None] * size
            weights[:, groups] = np.bincount(drawn.ravel(), minlength=number * size).reshape(number, size)
        yield weights


def interval(
    draws: Floats, clusters: int, *, share: bool = True, biased: float | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure.

    Percentiles of the draws, moved outward for few groups (Hesterberg, 2015: the bootstrap's variance is too small by
    (n - 1) / n, and its tails are those of the normal instead of the t distribution). Where all draws are 0 or all are
    1 they say nothing: the end is then the Clopper-Pearson bound of n groups of which none, or all, are so.

    Args:
        draws: the figure in each resample; NaN where it did not exist.
        clusters: number n of groups of the rarer class.
        share: whether the figure lies between 0 and 1.
        biased: for a figure that chance alone makes larger, such as the calibration error, its value: the draws are
            larger than it by as much as it is too large, so the interval is reflected at it.

    Returns:
        Both ends; None if there are fewer than two groups, or the figure existed in too few resamples.
    """
    known = draws[~np.isnan(draws)]
    if clusters < 2 or len(known) < len(draws) / 2:
        return None
    tail = (1 - COVERAGE) / 2
    if share and known.min() == known.max() and known[0] in (0.0, 1.0):
        bound = bound_of_all(clusters)
        return (bound, 1.0) if known[0] == 1.0 else (0.0, 1 - bound)
    wider = NormalDist().cdf(-_t_quantile(1 - tail, clusters - 1) * sqrt(clusters / (clusters - 1)))
    low, high = np.quantile(known, [wider, 1 - wider])
    if biased is not None:
        low, high = max(2 * biased - high, 0.0), max(2 * biased - low, 0.0)
    return float(low), float(high)


def bound_of_all(clusters: int) -> float:
    """Return the Clopper-Pearson bound, at the level of one end of an interval, of groups all of which are so."""
    return float(((1 - COVERAGE) / 2) ** (1 / clusters))


def _t_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of the t distribution (Cornish-Fisher; Abramowitz and Stegun, 26.7.5), exact for 1 and 2."""
    if freedom == 1:
        return tan(pi * (probability - 0.5))
    if freedom == 2:
        return sqrt(2) * (probability - 0.5) / sqrt(probability * (1 - probability))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(freedom) ** (power + 1) for power, term in enumerate(terms))
