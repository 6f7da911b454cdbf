"""Ranges of 8-bit tensors: the values of a tensor on real crops, and the part of them that its integers cover.

A range that covers everything wastes integers on a few large values; a smaller one clips those. All three methods
choose a threshold t on the magnitude, and keep the values in [-t, t].
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import ModelError, UsageError
from deepscan.export.tensor_values import Range, SlicedGraph
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod
from deepscan.runtime.artifacts.graph_index import GraphIndex

CROPS_AT_ONCE: Final = 8
CLIPS_AT_ONCE: Final = 1
CLIP_AXES: Final = 5
# Values sampled from one tensor of one batch; a histogram needs no more.
VALUES_SAMPLED: Final = 1 << 20
BINS: Final = 16384
PERCENTILE: Final = 99.99
# Entropy: total number of bins, smallest number kept, and distance of two thresholds in bins.
ENTROPY_BINS: Final = 2048
FEWEST_BINS: Final = 128
ENTROPY_STRIDE: Final = 16
# Probability of a bin that holds only clipped values.
LEAST_PROBABILITY: Final = 1e-9


class ItemReader:
    """Batches of real crops or clips in a random order, the same ones in each iteration.

    Args:
        items: RGB uint8 crops [M, H, W, 3] or clips [M, T, H, W, 3].
        seed: seed of the order.

    Raises:
        UsageError: there are no items.
    """

    def __init__(self, items: NDArray[np.uint8], *, seed: int) -> None:
        if not len(items):
            raise UsageError(
                "There are no crops to find the ranges of 8-bit numbers with: "
                "give videos like those that will be scanned, with --calibration-data FOLDER."
            )
        self._items = items
        self._order = np.random.default_rng(seed).permutation(len(items))
        self.batch = min(len(items), CLIPS_AT_ONCE if items.ndim == CLIP_AXES else CROPS_AT_ONCE)

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._items)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield batches [N, ...]; the last one may be smaller."""
        for start in range(0, len(self._order), self.batch):
            yield self._items[self._order[start : start + self.batch]]


@dataclass(frozen=True, slots=True, eq=False)
class TensorValues:
    """Values of a tensor on real crops.

    Attributes:
        low, high: smallest and largest value.
        magnitudes: int64 [BINS], number of sampled values in each of equal parts of (0, max(-low, high)]. Zeros are not
            counted: they are exact in any range.
    """

    low: float
    high: float
    magnitudes: NDArray[np.int64]


def observe(
    index: GraphIndex, tensors: Collection[str], reader: ItemReader, *, with_magnitudes: bool = True
) -> dict[str, TensorValues]:
    """Run a float32 graph over all items, twice, and record the values of its tensors.

    The first round finds the extremes, the second one counts, so memory does not grow with the number of items. Without
    `with_magnitudes` there is no second round, and the counts stay at zero.

    Raises:
        ModelError: a tensor has values that are not finite.
    """
    graph = SlicedGraph(index, tensors, batch=reader.batch)
    extremes = graph.extremes(reader)
    for name, found in extremes.items():
        if not (math.isfinite(found.low) and math.isfinite(found.high)):
            raise ModelError(f"{name} is not finite on real crops: the weights are damaged, so use other ones.")
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    if with_magnitudes:
        for batch in reader:
            for name, values in graph.run(batch):
                counts[name] += magnitude_counts(sampled(values), extremes[name].magnitude)
    return {name: TensorValues(extremes[name].low, extremes[name].high, counts[name]) for name in tensors}


def resolve_range(seen: TensorValues, method: CalibrationMethod, activations: Activations) -> Range:
    """Return the range of a tensor: `minmax` keeps everything, `percentile` 99.99 %, `entropy` what loses least.

    The activations decide how many integers there are on either side of zero.
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
    """Return the threshold that loses least information, in (0, 1] of the largest magnitude.

    For each threshold, the distribution of the clipped values is compared with the distribution after rounding to
    `levels` values; the smaller their Kullback-Leibler divergence the better. See S. Migacz, "8-bit inference with
    TensorRT", GTC 2017.
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
        bins: number of values in each bin.
        kept: number of bins; values in later ones count in the last of these, as clipping moves them there.
        levels: at most `kept`. Each represents a run of bins, and spreads their unclipped values evenly over those of
            them that are not empty.
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


def sampled(values: NDArray[np.float32], *, most: int = VALUES_SAMPLED) -> NDArray[np.float32]:
    """Return at most `most` values at equal distances, from all rows, columns and channels alike."""
    step = -(-values.size // most)
    # With a common divisor, the same columns would be taken from every row.
    while math.gcd(step, values.size) > 1:
        step += 1
    return values.reshape(-1)[::step]


def magnitude_counts(values: NDArray[np.float32], largest: float) -> NDArray[np.int64]:
    """Return the number of magnitudes in each of BINS equal parts of (0, largest]; zeros are not counted."""
    if largest == 0.0:
        return np.zeros(BINS, np.int64)
    magnitudes = np.abs(values[values != 0])
    places = np.ceil(magnitudes * np.float64(BINS / largest)).astype(np.int64) - 1
    return np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
