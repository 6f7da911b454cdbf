"""Values of the tensors inside a graph on real crops. The graph runs in slices, so that memory stays bounded.

The activations of a clip detector take gigabytes. As outputs of one graph they would all be in memory at once; here
only those of one slice are, and every node still runs once for each batch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import cpu_count

SLICE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value of a tensor; NaN if one of its values is."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """Largest absolute value."""
        return max(-self.low, self.high)


@dataclass(frozen=True, eq=False)
class _Slice:
    session: Session
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    watched: tuple[str, ...]
    done_with: tuple[str, ...]


class SlicedGraph:
    """A graph divided into slices that run one after another and return the watched tensors."""

    def __init__(
        self, index: GraphIndex, watched: Collection[str], *, batch: int, slice_bytes: int = SLICE_BYTES
    ) -> None:
        """Divide and load a graph.

        `watched` are the float32 tensors to return; their total size in a slice is at most `slice_bytes` in the largest
        batch, unless a single one is larger.
        """
        self._input = index.model.graph.input[0].name
        groups = _groups(index, set(watched), max(1, slice_bytes // batch))
        last_use = {name: place for place, group in enumerate(groups) for node in group for name in node.input}
        self._slices = []
        for place, group in enumerate(groups):
            made = [name for node in group for name in node.output]
            shown = tuple(name for name in made if name in watched)
            later = tuple(name for name in made if name not in watched and last_use.get(name, -1) > place)
            read = dict.fromkeys(name for node in group for name in node.input if name)
            inputs = tuple(name for name in read if name not in index.initializers and name not in set(made))
            done = tuple(name for name in (*inputs, *shown) if last_use.get(name, -1) <= place)
            model = index.part(group, inputs, (*shown, *later))
            session = Session(model.SerializeToString(), source=f"slice {place}", device="cpu", threads=cpu_count())
            self._slices.append(_Slice(session, inputs, (*shown, *later), shown, done))

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._slices)

    def run(self, batch: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield the names and values of the watched tensors for a batch; do not modify the arrays."""
        values: dict[str, NDArray[Any]] = {self._input: batch}
        for part in self._slices:
            feeds = {name: values[name] for name in part.inputs}
            values.update(zip(part.outputs, part.session.run(part.outputs, feeds), strict=True))
            for name in part.watched:
                yield name, values[name]
            for name in part.done_with:
                values.pop(name, None)

    def extremes(self, batches: Iterable[NDArray[Any]]) -> dict[str, Range]:
        """Return the extremes of the watched tensors over all batches."""
        found: dict[str, Range] = {}
        for batch in batches:
            for name, values in self.run(batch):
                known = found.get(name, Range(math.inf, -math.inf))
                low, high = values.min(initial=known.low), values.max(initial=known.high)
                found[name] = Range(float(low), float(high))
        return found


def _groups(index: GraphIndex, watched: set[str], slice_bytes: int) -> list[list[NodeProto]]:
    """Divide the nodes, in order and up to the last watched tensor, into groups of limited size."""
    nodes = list(index.nodes)
    while nodes and watched.isdisjoint(nodes[-1].output):
        nodes.pop()
    groups: list[list[NodeProto]] = [[]]
    held = 0
    for node in nodes:
        size = sum(index.nbytes(name) for name in node.output if name in watched)
        if held and held + size > slice_bytes:
            groups.append([])
            held = 0
        groups[-1].append(node)
        held += size
    return groups
