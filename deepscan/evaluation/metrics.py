"""Figures of merit, exact with ties and weights, for many weightings of the same scores at once.

The definitions are scikit-learn's, which the tests compare them with. Scores are sorted once; a bootstrap then asks for
the figures of thousands of weightings, which takes cumulative sums along the sorted scores and a matrix product.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from deepscan.results import Label

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]
Integers: TypeAlias = npt.NDArray[np.int64]

# False-positive rates at which the share of fakes that are found is given.
FPRS: Final = {"tpr_at_fpr_0.1%": 0.001, "tpr_at_fpr_1%": 0.01, "tpr_at_fpr_5%": 0.05, "tpr_at_fpr_10%": 0.1}
CALLED: Final[tuple[Label, ...]] = ("fake", "uncertain", "real")
# Of each class, the share that is called this: the confusion matrix, by rows.
CONFUSION: Final = tuple(f"{kind}_called_{label}" for kind in ("fake", "real") for label in CALLED)
RANKING: Final = ("auc", "average_precision", "eer", *FPRS)
PROBABILITY: Final = ("brier", "log_loss", "ece")
NAMES: Final = (*RANKING, *PROBABILITY, "balanced_accuracy", *CONFUSION)
PLACE: Final = {name: place for place, name in enumerate(NAMES)}
ECE_BINS: Final = 15
SMALLEST: Final = float(np.finfo(np.float64).eps)  # probabilities are kept this far from 0 and 1 in the log loss


class Sample:
    """Scores of one detector, and what is true of the videos.

    Args:
        fake: whether each video is fake, [N].
        score: probability of *fake* in [0, 1], [N]. A video without a score (NaN) counts as an error: it ranks below
            all fakes or above all genuine ones, whichever is wrong, has the worst Brier score, and is called wrongly;
            log loss and ECE do not exist then.
        called: index into `CALLED` of the label at the thresholds in force, [N].
        units: column of the weights that belongs to each video, [N]; without it, the video's own number.
    """

    def __init__(self, fake: Booleans, score: Floats, called: Integers, units: Integers | None = None) -> None:
        units = np.arange(len(fake)) if units is None else units
        self.fakes, self.genuine = int(fake.sum()), int((~fake).sum())
        self._failed = bool(np.isnan(score).any())
        worst = np.where(fake, -1.0, 2.0)
        score, called = np.where(np.isnan(score), worst, score), np.where(np.isnan(score), np.where(fake, 2, 0), called)
        order = np.argsort(-score, kind="stable")
        self._units, self._fake = units[order], fake[order].astype(np.float64)
        begins = np.flatnonzero(np.diff(score[order], prepend=np.inf))
        self._begins = begins if len(begins) < len(order) else None  # of each run of equal scores, where there are any
        self._features = _features(fake, np.clip(score, 0.0, 1.0), called)
        self._feature_units = units
        self._by_unit: Floats | None = None

    def undefined(self, name: str) -> str:
        """Return why a figure does not exist, or nothing."""
        if not self.fakes + self.genuine:
            return "there is no scored video"
        kind = name.partition("_called_")[0] if name in CONFUSION else ""
        if not self.fakes and (name in RANKING or name == "balanced_accuracy" or kind == "fake"):
            return "there is no fake"
        if not self.genuine and (name in RANKING or name == "balanced_accuracy" or kind == "real"):
            return "there is no genuine video"
        return "videos without a score have none" if self._failed and name in ("log_loss", "ece") else ""

    def figures(self, weights: Floats) -> Floats:
        """Return the figures [R, len(NAMES)] of R weightings [R, U]; NaN where a figure does not exist."""
        found = np.full((len(weights), len(NAMES)), np.nan)
        if not len(self._fake):
            return found
        with np.errstate(divide="ignore", invalid="ignore"):
            self._rank(weights, found)
            self._sum(weights, found)
        if self._failed:
            found[:, [PLACE["log_loss"], PLACE["ece"]]] = np.nan
        return found

    def _rank(self, weights: Floats, found: Floats) -> None:
        if not self.fakes or not self.genuine:
            return
        drawn = np.take(weights, self._units, axis=1)
        of_fakes = drawn * self._fake
        of_genuine = drawn - of_fakes
        if self._begins is not None:
            of_fakes = np.add.reduceat(of_fakes, self._begins, axis=1)
            of_genuine = np.add.reduceat(of_genuine, self._begins, axis=1)
        true, false = np.cumsum(of_fakes, axis=1), np.cumsum(of_genuine, axis=1)
        fakes, genuine = true[:, -1], false[:, -1]
        above = np.einsum("rk,rk->r", of_genuine, true) - np.einsum("rk,rk->r", of_genuine, of_fakes) / 2
        found[:, PLACE["auc"]] = above / (fakes * genuine)
        total = true + false
        precision = np.divide(true, total, out=np.zeros_like(true), where=total > 0)
        precise = np.einsum("rk,rk->r", of_fakes, precision) / fakes
        found[:, PLACE["average_precision"]] = np.where(genuine > 0, precise, np.nan)
        rates = _points(true, false)
        found[:, PLACE["eer"]] = rates[0]
        found[:, [PLACE[name] for name in FPRS]] = rates[1].T

    def _sum(self, weights: Floats, found: Floats) -> None:
        if self._by_unit is None:
            count, units = weights.shape[1], self._feature_units
            self._by_unit = np.stack([np.bincount(units, column, count) for column in self._features.T])
        # Not `@`: the threads of BLAS cost more than such a small product, and wait for each other on a busy machine.
        sums = np.einsum("ru,fu->rf", weights, self._by_unit)
        counts = sums[:, : len(CONFUSION)]
        fakes, genuine = counts[:, :3].sum(1), counts[:, 3:].sum(1)
        total = fakes + genuine
        shares = np.concatenate([counts[:, :3] / fakes[:, None], counts[:, 3:] / genuine[:, None]], axis=1)
        found[:, [PLACE[name] for name in CONFUSION]] = shares
        found[:, PLACE["balanced_accuracy"]] = (shares[:, 0] + 1 - shares[:, 3]) / 2
        found[:, PLACE["brier"]] = sums[:, 6] / total
        found[:, PLACE["log_loss"]] = sums[:, 7] / total
        found[:, PLACE["ece"]] = np.abs(sums[:, 8:]).sum(1) / total


def _features(fake: Booleans, score: Floats, called: Integers) -> Floats:
    """Return what is added up over videos: six counts of the confusion, Brier score, log loss, a column per bin."""
    count = len(fake)
    features = np.zeros((count, len(CONFUSION) + 2 + ECE_BINS))
    rows = np.arange(count)
    features[rows, called + np.where(fake, 0, 3)] = 1.0
    features[:, 6] = (score - fake) ** 2
    right = np.where(fake, np.clip(score, SMALLEST, 1 - SMALLEST), 1 - np.clip(score, SMALLEST, 1 - SMALLEST))
    features[:, 7] = -np.log(right)
    bins = np.searchsorted(np.linspace(0, 1, ECE_BINS + 1)[1:-1], score)
    features[rows, 8 + bins] = fake - score
    return features


def _points(true: Floats, false: Floats) -> tuple[Floats, Floats]:
    """Return the equal error rate [R], and the highest true-positive rates [4, R] within the rates of `FPRS`.

    They are looked up by bisection in the ROC curves of R weightings, all at once. The curve's point 0 is the origin.
    At equal error, false positives are as frequent as false negatives, on the lines between the points.

    Args:
        true: weight of fakes at or above each threshold, [R, K], thresholds falling.
        false: that of genuine videos.
    """
    rows, fakes, genuine = np.arange(len(true)), true[:, -1], false[:, -1]
    limits = np.array([np.inf, *FPRS.values()])[:, None]

    def point(number: Integers) -> tuple[Floats, Floats]:
        place = np.maximum(number - 1, 0)
        origin = number == 0
        return np.where(origin, 0.0, true[rows, place] / fakes), np.where(origin, 0.0, false[rows, place] / genuine)

    low = np.zeros((len(limits), len(true)), dtype=np.int64)  # the last point that is within the limit
    high = np.full_like(low, true.shape[1])
    for _ in range(int(true.shape[1]).bit_length()):
        middle = (low + high + 1) // 2
        up, right = point(middle)
        within = right <= limits
        within[0] = up[0] + right[0] < 1
        low, high = np.where(within, middle, low), np.where(within, high, middle - 1)
    up, right = point(low)
    next_up, next_right = point(np.minimum(low + 1, true.shape[1]))
    gap, next_gap = right[0] + up[0] - 1, next_right[0] + next_up[0] - 1
    equal = right[0] + gap / (gap - next_gap) * (next_right[0] - right[0])
    return equal, np.where(genuine > 0, up[1:], np.nan)
