"""A graph cut into slices that run one after another, so that what lies between its nodes can be looked at.

The activations of a clip network are gigabytes. With all of them as outputs of one graph they would all be in memory
at once; here only those of one slice are, and every node still runs once for each batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto, helper

from deepscan.calibration.graph_reading import Reading
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import cpu_count

SLICE_BYTES: Final = 256 << 20


@dataclass(frozen=True, eq=False)
class _Slice:
    session: Session
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    watched: tuple[str, ...]
    done_with: tuple[str, ...]


class SlicedGraph:
    """Runs a float32 graph over batches, and shows chosen tensors on the way."""

    def __init__(
        self, reading: Reading, watched: Collection[str], *, batch: int, slice_bytes: int = SLICE_BYTES
    ) -> None:
        """Cut and load a graph.

        Args:
            reading: of the graph.
            watched: names of the float32 tensors to show.
            batch: how many items come at once.
            slice_bytes: of the watched tensors of one slice, at most, unless a single one is larger.
        """
        graph = reading.model.graph
        self._input = graph.input[0].name
        groups = _groups(reading, set(watched), max(1, slice_bytes // batch))
        last_use = {name: place for place, group in enumerate(groups) for node in group for name in node.input}
        self._slices = []
        for place, group in enumerate(groups):
            made = [name for node in group for name in node.output]
            shown = tuple(name for name in made if name in watched)
            later = tuple(name for name in made if name not in watched and last_use.get(name, -1) > place)
            read = dict.fromkeys(name for node in group for name in node.input if name)
            inputs = tuple(name for name in read if name not in reading.constants and name not in set(made))
            done = tuple(name for name in (*inputs, *shown) if last_use.get(name, -1) <= place)
            model = _model(reading, group, inputs, (*shown, *later))
            session = Session(model.SerializeToString(), source=f"slice {place}", device="cpu", threads=cpu_count())
            self._slices.append(_Slice(session, inputs, (*shown, *later), shown, done))

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self._slices)

    def run(self, batch: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield the watched tensors of a batch, by name; an array must not be changed."""
        values: dict[str, NDArray[Any]] = {self._input: batch}
        for part in self._slices:
            feeds = {name: values[name] for name in part.inputs}
            values.update(zip(part.outputs, part.session.run(part.outputs, feeds), strict=True))
            for name in part.watched:
                yield name, values[name]
            for name in part.done_with:
                values.pop(name, None)


def _groups(reading: Reading, watched: set[str], slice_bytes: int) -> list[list[NodeProto]]:
    """Divide the nodes, in their order, so that the watched tensors of a group are not too large together.

    What comes behind the last watched tensor is left out.
    """
    nodes = list(reading.model.graph.node)
    while nodes and watched.isdisjoint(nodes[-1].output):
        nodes.pop()
    groups: list[list[NodeProto]] = [[]]
    held = 0
    for node in nodes:
        size = sum(reading.bytes_of_one(name) for name in node.output if name in watched)
        if held and held + size > slice_bytes:
            groups.append([])
            held = 0
        groups[-1].append(node)
        held += size
    return groups


def _model(
    reading: Reading, nodes: list[NodeProto], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    source = reading.model
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in source.graph.initializer if tensor.name in read]
    given = [helper.make_tensor_value_info(name, reading.types[name], None) for name in inputs]
    wanted = [ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "slice", given, wanted, weights)
    return helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)
