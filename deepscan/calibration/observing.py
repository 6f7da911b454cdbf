"""What the tensors of a graph look like on real crops."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepscan.calibration.graph_reading import Reading
from deepscan.calibration.item_reader import ItemReader
from deepscan.calibration.ranges import BINS, Seen
from deepscan.calibration.slices import SlicedGraph
from deepscan.errors import ModelError

# Of one tensor in one batch; a histogram needs no more.
VALUES_SAMPLED: Final = 1 << 20


def observed(
    reading: Reading, tensors: Collection[str], reader: ItemReader, *, with_magnitudes: bool = True
) -> dict[str, Seen]:
    """Run a float32 graph over all items, twice, and note what values its tensors take.

    The first round finds the smallest and the largest of all values, the second one counts: in memory, a tensor is an
    array of bins, however many items there are.

    Args:
        reading: of the graph.
        tensors: names of float32 tensors.
        reader: of the items.
        with_magnitudes: False saves the second round, and leaves the counts at zero.

    Raises:
        ModelError: a tensor has values that are no finite numbers.
    """
    graph = SlicedGraph(reading, tensors, batch=reader.batch)
    lows, highs = dict.fromkeys(tensors, math.inf), dict.fromkeys(tensors, -math.inf)
    for batch in reader:
        for name, values in graph.run(batch):
            low, high = float(values.min()), float(values.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise ModelError(f"{name} is not finite on real crops: the weights are damaged, so use other ones.")
            lows[name], highs[name] = min(lows[name], low), max(highs[name], high)
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    if with_magnitudes:
        largest = {name: max(-lows[name], highs[name]) for name in tensors}
        for batch in reader:
            for name, values in graph.run(batch):
                counts[name] += magnitude_counts(sampled(values), largest[name])
    return {name: Seen(lows[name], highs[name], counts[name]) for name in tensors}


def sampled(values: NDArray[np.float32], *, most: int = VALUES_SAMPLED) -> NDArray[np.float32]:
    """Return values at equal distances, `most` at most, from all rows, columns and channels alike."""
    step = -(-values.size // most)
    # With a common divisor, the same columns would be taken from every row.
    while math.gcd(step, values.size) > 1:
        step += 1
    return values.reshape(-1)[::step]


def magnitude_counts(values: NDArray[np.float32], largest: float) -> NDArray[np.int64]:
    """Count how many magnitudes lie in each of BINS equal parts of (0, largest]; zeros are left out."""
    if largest == 0.0:
        return np.zeros(BINS, np.int64)
    magnitudes = np.abs(values[values != 0])
    places = np.ceil(magnitudes * np.float64(BINS / largest)).astype(np.int64) - 1
    return np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
