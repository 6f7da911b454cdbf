"""From the numbers a tensor takes on real crops to the range that its integers shall cover.

A range that covers everything wastes integers on a few large numbers; a smaller one cuts those off. All three methods
choose a threshold t on the magnitude, and keep what lies in [-t, t].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepscan.calibration.scales import Range
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod

BINS: Final = 16384
PERCENTILE: Final = 99.99
# Entropy: of so many bins in all, so many at least are kept, and thresholds lie so many bins apart.
ENTROPY_BINS: Final = 2048
FEWEST_BINS: Final = 128
ENTROPY_STRIDE: Final = 16
# What a bin is worth that holds clipped values and no others.
LEAST_PROBABILITY: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What was seen of a tensor.

    Attributes:
        low, high: the smallest and the largest of all its values.
        magnitudes: int64 [BINS], how many sampled values lie in each of equal parts of (0, max(-low, high)]. Zeros
            are not counted, as they are exact whatever the range.
    """

    low: float
    high: float
    magnitudes: NDArray[np.int64]


def resolve_range(seen: Seen, method: CalibrationMethod, activations: Activations) -> Range:
    """Return the range of a tensor.

    Args:
        seen: on real crops.
        method: `minmax` keeps everything; `percentile` 99.99 % of the values; `entropy` what loses least information.
        activations: how the integers will lie, which decides how many there are on either side of zero.
    """
    largest = max(-seen.low, seen.high)
    if method == "minmax" or not seen.magnitudes.any():
        return Range(seen.low, seen.high)
    if method == "percentile":
        threshold = percentile_threshold(seen.magnitudes, PERCENTILE) * largest
    else:
        one_sided = min(-seen.low, seen.high) <= 0.0
        levels = FEWEST_BINS * (2 if one_sided and activations == "affine" else 1)
        threshold = entropy_threshold(seen.magnitudes, levels) * largest
    return Range(max(seen.low, -threshold), min(seen.high, threshold))


def percentile_threshold(magnitudes: NDArray[np.int64], percentile: float) -> float:
    """Return the lowest edge of a bin below which `percentile` % of the values lie, in (0, 1] of the largest."""
    counted = np.cumsum(magnitudes)
    place = int(np.searchsorted(counted, counted[-1] * percentile / 100))
    return (place + 1) / len(magnitudes)


def entropy_threshold(magnitudes: NDArray[np.int64], levels: int) -> float:
    """Return the threshold whose integers tell most about the values, in (0, 1] of the largest magnitude.

    For each threshold, the distribution of the clipped values is compared with the one that is left when only `levels`
    different ones can be told apart; the smaller their Kullback-Leibler divergence the better. See S. Migacz, "8-bit
    inference with TensorRT", GTC 2017.
    """
    bins = magnitudes.reshape(ENTROPY_BINS, -1).sum(axis=1).astype(np.float64)
    best, least = ENTROPY_BINS, np.inf
    for kept in range(ENTROPY_BINS, levels - 1, -ENTROPY_STRIDE):
        loss = divergence(bins, kept, levels)
        if loss < least:
            best, least = kept, loss
    return best / ENTROPY_BINS


def divergence(bins: NDArray[np.float64], kept: int, levels: int) -> float:
    """Return the Kullback-Leibler divergence, in nats, of `levels` integers from the first `kept` bins.

    Args:
        bins: how many values lie in each.
        kept: what lies in later bins is counted in the last of these, as clipping does.
        levels: `kept` at most. Each stands for a run of bins, and spreads what they hold, without the clipped values,
            evenly over those of them that hold anything.
    """
    reference = bins[:kept].copy()
    reference[-1] += bins[kept:].sum()
    starts = np.arange(levels) * kept // levels
    widths = np.diff(np.append(starts, kept))
    filled = (reference > 0).astype(np.float64)
    sums = np.add.reduceat(bins[:kept], starts)
    counts = np.add.reduceat(filled, starts)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    candidate = np.repeat(means, widths) * filled
    if not sums.any():
        return float("inf")
    p = reference / reference.sum()
    q = np.maximum(candidate / candidate.sum(), LEAST_PROBABILITY)
    told = p > 0
    return float((p[told] * np.log(p[told] / q[told])).sum())
