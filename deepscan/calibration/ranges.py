"""Ranges of 8-bit tensors: what values a tensor takes on real crops, and which of them its integers cover.

A range that covers everything wastes integers on a few large values; a smaller one clips those. All three methods
choose a threshold t on the magnitude, and keep what lies in [-t, t].
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepscan.calibration.item_reader import ItemReader
from deepscan.calibration.qdq import Range
from deepscan.errors import ModelError
from deepscan.export.tensor_values import SlicedGraph
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod
from deepscan.runtime.artifacts.graph_index import GraphIndex

# Values sampled from one tensor of one batch; a histogram needs no more.
VALUES_SAMPLED: Final = 1 << 20
BINS: Final = 16384
PERCENTILE: Final = 99.99
# Entropy: number of bins in all, fewest that are kept, and distance of two thresholds in bins.
ENTROPY_BINS: Final = 2048
FEWEST_BINS: Final = 128
ENTROPY_STRIDE: Final = 16
# Probability of a bin that holds clipped values and no others.
LEAST_PROBABILITY: Final = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class TensorValues:
    """Values of a tensor on real crops.

    Attributes:
        low, high: the smallest and the largest of all values.
        magnitudes: int64 [BINS], number of sampled values in each of equal parts of (0, max(-low, high)]. Zeros are not
            counted, as they are exact whatever the range.
    """

    low: float
    high: float
    magnitudes: NDArray[np.int64]


def observe(
    index: GraphIndex, tensors: Collection[str], reader: ItemReader, *, with_magnitudes: bool = True
) -> dict[str, TensorValues]:
    """Run a float32 graph over all items, twice, and record the values of its tensors.

    The first round finds the smallest and the largest of all values, the second one counts: in memory, a tensor is an
    array of bins, however many items there are.

    Args:
        index: of the graph.
        tensors: names of float32 tensors.
        reader: items to run over.
        with_magnitudes: False saves the second round, and leaves the counts at zero.

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
    """Return the range of a tensor.

    Args:
        seen: values of the tensor.
        method: `minmax` keeps everything; `percentile` 99.99 % of the values; `entropy` what loses least information.
        activations: kind of integers, which decides how many there are on either side of zero.
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
        bins: number of values in each.
        kept: number of bins; what lies in later ones is counted in the last of these, as clipping does.
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
