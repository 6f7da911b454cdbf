"""What plots show: curves with 95 % bands, reliability and histograms, from the scores of each detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from deepscan.evaluation.bootstrap import bound_of_all, clusters_of, interval, resamples
from deepscan.evaluation.evaluate import score_of
from deepscan.evaluation.labels import LabeledResult
from deepscan.evaluation.metrics import Booleans, Floats, Integers

BAND_RESAMPLES: Final = 500
BINS: Final = 10  # of the reliability curve
# Where bands are computed: false-positive rates, close at the low end for logarithmic axes, and recalls.
FPR_GRID: Final = np.unique(np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 61), np.linspace(0.0, 1.0, 41)]))
RECALL_GRID: Final = np.linspace(0.01, 1.0, 67)


@dataclass(slots=True)
class Band:
    """A 95 % interval at each place of an axis.

    Attributes:
        at: the places, [G].
        low, high: ends of the interval, [G]; NaN where there is none.
    """

    at: Floats
    low: Floats
    high: Floats


@dataclass(slots=True)
class Bins:
    """Reliability: of each tenth of the scores that holds videos, its mean score and its share of fakes.

    Attributes:
        mean, share: [B].
        low, high: 95 % interval of the share, [B]; NaN where there is none.
        count: number of videos, [B].
    """

    mean: Floats
    share: Floats
    low: Floats
    high: Floats
    count: Integers


@dataclass(slots=True)
class Curves:
    """What is drawn of one detector.

    Attributes:
        detector: its name.
        fake, score: of the videos with a score, [N].
        methods: how each fake was made, [N]; empty for genuine videos, and where it is not known.
        thresholds: `real_below` and `fake_from`, each pair that the results have.
        groups: number of groups of the rarer class.
        roc: false-positive and true-positive rate, [K]; None without both classes, as what follows.
        precision_recall: recall and precision, [K].
        roc_band, precision_band: their bands.
        bins: reliability; None without a score.
    """

    detector: str
    fake: Booleans
    score: Floats
    methods: tuple[str, ...]
    thresholds: tuple[tuple[float, float], ...]
    groups: int = 0
    roc: tuple[Floats, Floats] | None = None
    precision_recall: tuple[Floats, Floats] | None = None
    roc_band: Band | None = None
    precision_band: Band | None = None
    bins: Bins | None = None

    @property
    def fakes(self) -> int:
        """Number of fakes with a score."""
        return int(self.fake.sum())

    @property
    def genuine(self) -> int:
        """Number of genuine videos with a score."""
        return int((~self.fake).sum())


def curves_of(labeled: Sequence[LabeledResult], *, count: int = BAND_RESAMPLES, seed: int = 0) -> list[Curves]:
    """Return the curves of each detector; all get the same resamples of whole groups.

    Args:
        labeled: results with labels, of one or several detectors.
        count: number of resamples for the bands.
        seed: seed of the resamples.
    """
    scored = [each for each in labeled if not np.isnan(score_of(each.result))]
    videos = {each.result.path: each for each in scored}
    numbers = {path: number for number, path in enumerate(videos)}
    every_fake = np.array([each.truth.label == "fake" for each in videos.values()], dtype=bool)
    clusters = clusters_of([each.cluster for each in videos.values()], every_fake)
    by_detector: dict[str, list[LabeledResult]] = {}
    for each in scored:
        by_detector.setdefault(each.result.model, []).append(each)
    found, sorted_scores = [], []
    for detector, results in by_detector.items():
        rows = [each.result for each in results]
        fake = np.array([each.truth.label == "fake" for each in results], dtype=bool)
        thresholds = {
            (row.real_below, row.fake_from): None
            for row in rows
            if row.real_below is not None and row.fake_from is not None
        }
        one = Curves(
            detector=detector,
            fake=fake,
            score=np.array([score_of(row) for row in rows]),
            methods=tuple((each.truth.method or "") if each.truth.label == "fake" else "" for each in results),
            thresholds=tuple(thresholds),
            groups=clusters.smaller_class(np.array([numbers[row.path] for row in rows], dtype=np.int64), fake),
        )
        found.append(one)
        sorted_scores.append(_Sorted(one, clusters.of_video[[numbers[row.path] for row in rows]]))
    for each_sorted in sorted_scores:
        each_sorted.set_values(np.ones((1, clusters.count)))
    for weights in resamples(clusters, count, seed) if videos else ():
        for each_sorted in sorted_scores:
            each_sorted.draw(weights)
    for each_sorted in sorted_scores:
        each_sorted.set_bands()
    return found


class _Sorted:
    """The scores of one detector in falling order, of which resamples are drawn.

    Args:
        curves: gets the curves.
        units: number of the group of each video, [N].
    """

    def __init__(self, curves: Curves, units: Integers) -> None:
        self._curves = curves
        order = np.argsort(-curves.score, kind="stable")
        self._fake, self._units, self._score = curves.fake[order], units[order], curves.score[order]
        self._begins = np.flatnonzero(np.diff(self._score, prepend=np.inf))
        self._bin = np.minimum((self._score * BINS).astype(np.int64), BINS - 1)[:, None] == np.arange(BINS)
        self._both = bool(curves.fakes and curves.genuine)
        self._drawn: list[tuple[Floats, Floats, Floats]] = []

    def set_values(self, ones: Floats) -> None:
        """Set the curves themselves: those of weights of one."""
        drawn = np.take(ones, self._units, axis=1)
        if self._both:
            true, false = self._totals(drawn)
            found, alarms = true[0] / true[0, -1], false[0] / false[0, -1]
            self._curves.roc = np.append(0.0, alarms), np.append(0.0, found)
            self._curves.precision_recall = found, true[0] / (true[0] + false[0])

    def draw(self, weights: Floats) -> None:
        """Compute the curves of resamples, [R, U], at the places of the bands."""
        drawn = np.take(weights, self._units, axis=1)
        rates, precision = np.empty((0, len(FPR_GRID))), np.empty((0, len(RECALL_GRID)))
        if self._both:
            true, false = self._totals(drawn)
            rates = np.full((len(drawn), len(FPR_GRID)), np.nan)
            precision = np.full((len(drawn), len(RECALL_GRID)), np.nan)
            for row, (hits, alarms) in enumerate(zip(true, false, strict=True)):
                if hits[-1] and alarms[-1]:
                    within = np.searchsorted(alarms / alarms[-1], FPR_GRID, side="right")
                    rates[row] = np.append(0.0, hits / hits[-1])[within]
                    reached = np.searchsorted(hits / hits[-1], RECALL_GRID - 1e-12)
                    precision[row] = (hits / np.maximum(hits + alarms, 1e-12))[reached]
        fakes, total = (drawn * self._fake) @ self._bin, drawn @ self._bin
        with np.errstate(invalid="ignore"):
            self._drawn.append((rates, precision, fakes / total))

    def set_bands(self) -> None:
        """Set the bands, from what was drawn."""
        rates, precision, shares = (np.concatenate(each) for each in zip(*self._drawn, strict=True))
        if self._both:
            rising = _band(FPR_GRID, rates, self._curves.groups)
            rising.low, rising.high = np.maximum.accumulate(rising.low), np.maximum.accumulate(rising.high)
            self._curves.roc_band = rising
            band = _band(RECALL_GRID, precision, self._curves.groups)
            if self._curves.groups:  # nearly all draws that are 1 say as little as all, of which `interval` takes care
                least = np.minimum(band.low, bound_of_all(self._curves.groups))
                band.low = np.where(band.high == 1.0, least, band.low)
            self._curves.precision_band = band
        kept = [number for number in range(BINS) if self._bin[:, number].any()]
        members = [self._bin[:, number] for number in kept]
        ends = [
            interval(shares[:, number], len(np.unique(self._units[chosen])))
            for number, chosen in zip(kept, members, strict=True)
        ]
        self._curves.bins = Bins(
            mean=np.array([self._score[chosen].mean() for chosen in members]),
            share=np.array([self._fake[chosen].mean() for chosen in members]),
            low=np.array([np.nan if end is None else end[0] for end in ends]),
            high=np.array([np.nan if end is None else end[1] for end in ends]),
            count=np.array([int(chosen.sum()) for chosen in members]),
        )

    def _totals(self, drawn: Floats) -> tuple[Floats, Floats]:
        """Return the weight of fakes and of genuine videos at or above each different score, [R, K]."""
        fakes = np.add.reduceat(drawn * self._fake, self._begins, axis=1)
        genuine = np.add.reduceat(drawn * ~self._fake, self._begins, axis=1)
        return np.cumsum(fakes, axis=1), np.cumsum(genuine, axis=1)


def _band(at: Floats, drawn: Floats, groups: int) -> Band:
    ends = [interval(column, groups) or (np.nan, np.nan) for column in drawn.T]
    return Band(at, np.array([low for low, _ in ends]), np.array([high for _, high in ends]))
