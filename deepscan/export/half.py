"""From a float32 graph to a float16 one with float32 islands, and to one that shows on a CPU what that computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deepscan.export.half_graph import MOVES, SHAPES_ONLY, FloatGraph, Places, read_graph


def halved(model: onnx.ModelProto, islands: Collection[str]) -> onnx.ModelProto:
    """Return the graph with its arithmetic in float16.

    The graph is strongly typed: all floating-point inputs of a node are of one type, and a Cast stands wherever types
    meet; a tensor is cast once, however many nodes read it. Weights are stored in the type in which they are used.
    What ONNX allows in float32 only (the scales of a Resize, a whole operator) stays in float32.

    Args:
        model: a float32 graph; not changed. Inputs and outputs keep their names and types.
        islands: names of the nodes that compute in float32.
    """
    return _Writer(read_graph(model), islands, emulate=False).written()


def emulated(model: onnx.ModelProto, islands: Collection[str]) -> onnx.ModelProto:
    """Return a float32 graph that rounds to float16, and overflows, wherever `halved` of the same arguments does.

    ONNX Runtime computes a float16 graph in float32 on a CPU and leaves out roundings between nodes, so such a graph
    tells nothing about half precision there. Here every tensor that would be float16 is cast to it and back, which it
    keeps, and weights are rounded. Sums inside a node are in float32, as they are in the tensor cores' usual kernels.

    It errs on the safe side where GPUs fuse a convolution with what follows and round once, not after every node. It
    knows nothing of kernels that also sum in float16.
    """
    return _Writer(read_graph(model), islands, emulate=True).written()


class _Writer:
    """Writes nodes one after another, and whatever has to stand between them."""

    def __init__(self, graph: FloatGraph, islands: Collection[str], *, emulate: bool) -> None:
        self.graph = graph
        self.emulate = emulate
        self.outputs = {output.name for output in graph.model.graph.output}
        self.nodes: list[NodeProto] = []
        # Under which name a tensor is there in float16 (True) or float32 (False).
        self.names: dict[tuple[str, bool], str] = {(given.name, False): given.name for given in graph.model.graph.input}
        self.taken = {name for node in graph.nodes for name in (*node.input, *node.output)} | self.outputs
        nothing = Places(frozenset(), frozenset())
        self.places = [
            nothing if node.name in islands else places for node, places in zip(graph.nodes, graph.places, strict=True)
        ]

    def written(self) -> onnx.ModelProto:
        source = self.graph.model
        weights = self._weights()
        for node, places in zip(self.graph.nodes, self.places, strict=True):
            self._write(node, places)
        graph = helper.make_graph(self.nodes, source.graph.name, source.graph.input, source.graph.output, weights)
        made = helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)
        made.producer_name, made.producer_version = source.producer_name, source.producer_version
        made.metadata_props.extend(source.metadata_props)
        return made

    def _weights(self) -> list[TensorProto]:
        """Store each weight in the type, or the two types, in which nodes read it."""
        read: dict[str, set[bool]] = defaultdict(set)
        for node, places in zip(self.graph.nodes, self.places, strict=True):
            for index, name in enumerate(node.input):
                if name in self.graph.weights:
                    read[name].add(index in places.inputs)
        stored = list(self.graph.others)
        for name, kinds in read.items():
            for half in sorted(kinds):
                value = self.graph.weights[name]
                if half:
                    with np.errstate(over="ignore"):  # infinity, as a GPU would have it
                        value = value.astype(np.float16)
                own = name if len(kinds) == 1 or not half else self._free(f"{name}.half")
                self.names[name, half] = own
                stored.append(numpy_helper.from_array(value.astype(np.float32) if self.emulate else value, own))
        return stored

    def _write(self, node: NodeProto, places: Places) -> None:
        made = NodeProto()
        made.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self.graph.weights or name in self.graph.shapes:
                made.input[index] = self._there(name, index in places.inputs, any_type=node.op_type in SHAPES_ONLY)
        if node.op_type == "Cast" and places.outputs and not self.emulate:
            for attribute in made.attribute:
                if attribute.name == "to":
                    attribute.i = TensorProto.FLOAT16
        casts = []
        for index, name in enumerate(node.output):
            if index not in places.outputs:
                self.names[name, False] = name
            elif not self.emulate:
                # An output of the graph keeps its type under its name.
                made.output[index] = self._free(f"{name}.half") if name in self.outputs else name
                self.names[name, True] = made.output[index]
                if name in self.outputs:
                    casts.append((made.output[index], name))
            else:
                self.names[name, False] = self.names[name, True] = name
                if node.op_type not in MOVES:
                    made.output[index] = self._free(f"{name}.exact")
                    casts.append((made.output[index], name))
        self.nodes.append(made)
        for given, name in casts:
            if self.emulate:
                self._round(given, name)
            else:
                self._cast(given, name, TensorProto.FLOAT)
                self.names[name, False] = name

    def _there(self, name: str, half: bool, *, any_type: bool) -> str:
        """Return the name of a tensor in the type that a node wants, and cast it first where that must be."""
        if any_type and (name, not half) in self.names:
            half = not half
        if (name, half) not in self.names:
            given = self.names[name, not half]
            wanted = self._free(f"{name}.half" if half else f"{name}.float")
            if self.emulate:
                self._round(given, wanted)
            else:
                self._cast(given, wanted, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
            self.names[name, half] = wanted
        return self.names[name, half]

    def _round(self, given: str, wanted: str) -> None:
        between = self._free(f"{wanted}.rounded")
        self._cast(given, between, TensorProto.FLOAT16)
        self._cast(between, wanted, TensorProto.FLOAT)

    def _cast(self, given: str, wanted: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [given], [wanted], name=f"cast {wanted}", to=kind))

    def _free(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name
