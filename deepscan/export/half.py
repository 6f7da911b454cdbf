"""Graphs in float16 with some nodes in float32, and float32 graphs that emulate them on a CPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper

from deepscan.runtime.artifacts.artifacts import HALF_SUFFIX
from deepscan.runtime.artifacts.graph_index import DATA_MOVEMENT_OPS, GraphIndex, unused_name

# Operators whose output holds values of their inputs, or their negatives: float16 values pass without rounding.
EXACT_OPS: Final = DATA_MOVEMENT_OPS | frozenset("Abs Clip Concat Max Min Neg ReduceMin Relu Tile Where".split())
# Operators that read only the shape of a tensor, whatever its type.
SHAPE_OPS: Final = frozenset({"Shape", "Size"})


@dataclass(frozen=True, slots=True)
class Places:
    """Positions of the inputs and outputs that become float16 when a node does, as ONNX's operator definitions allow.

    A node without any cannot compute in float16.
    """

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Tell whether the node can compute in float16 at all."""
        return bool(self.inputs or self.outputs)


def half_places(index: GraphIndex) -> list[Places]:
    """Return the places of each node of a float32 graph, in order."""
    versions = {entry.domain: entry.version for entry in index.model.opset_import}
    floats = index.floats | index.weights.keys()
    return [_places(node, floats, versions) for node in index.nodes]


def _places(node: NodeProto, floats: Collection[str], versions: dict[str, int]) -> Places:
    if node.op_type in SHAPE_OPS or not defs.has(node.op_type, versions.get(node.domain, 0), node.domain):
        return Places()
    schema = defs.get_schema(node.op_type, versions[node.domain], node.domain)
    allowed = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if "tensor(float16)" in constraint.allowed_type_strs
    }
    # Beyond the last declared input or output, a node may have more of the same type.
    taken = [schema.inputs[min(i, len(schema.inputs) - 1)].type_str for i in range(len(node.input))]
    given = [schema.outputs[min(i, len(schema.outputs) - 1)].type_str for i in range(len(node.output))]
    inputs = frozenset(i for i, name in enumerate(node.input) if name in floats and taken[i] in allowed)
    bound = {taken[i] for i in inputs}
    outputs = frozenset(
        i for i, name in enumerate(node.output) if name in floats and (given[i] in bound or node.op_type == "Cast")
    )
    return Places(inputs, outputs)


def halved(index: GraphIndex, fp32_nodes: Collection[str]) -> onnx.ModelProto:
    """Return the graph with its arithmetic in float16.

    The graph is strongly typed: all floating-point inputs of a node have one type, with a Cast wherever types meet. A
    tensor is cast once, however many nodes read it. Weights are stored in the type in which they are used. Inputs and
    operators that ONNX defines only for float32, such as the scales of a Resize, stay in float32, as do the nodes named
    `fp32_nodes`. The inputs and outputs of the graph keep their names and types.
    """
    return _Writer(index, fp32_nodes, emulate=False).written()


def emulated(index: GraphIndex, fp32_nodes: Collection[str]) -> onnx.ModelProto:
    """Return a float32 graph that rounds to float16, and overflows, wherever `halved` of the same arguments does.

    On a CPU, ONNX Runtime computes a float16 graph in float32 and omits roundings between nodes, so running it there
    shows nothing about half precision. Here every tensor that would be float16 is cast to it and back, which ONNX
    Runtime keeps, and weights are rounded. Sums inside a node are in float32, as in the usual tensor core kernels.

    The emulation is pessimistic where GPUs fuse a convolution with the nodes behind it and round only once. It does not
    cover kernels that also sum in float16.
    """
    return _Writer(index, fp32_nodes, emulate=True).written()


def store_exact_halves(model: onnx.ModelProto) -> int:
    """Store as float16, in place, and widen on load every float32 tensor whose values all survive that unchanged.

    Files become smaller without loss: runtimes fold the widening into a constant when they load the model. Returns the
    number of changed tensors.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}{HALF_SUFFIX}"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"widen {name}", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(casts)


class _Writer:
    """Writer of nodes, in order, with the casts between them."""

    def __init__(self, index: GraphIndex, fp32_nodes: Collection[str], *, emulate: bool) -> None:
        self.index = index
        self.emulate = emulate
        self.outputs = {output.name for output in index.model.graph.output}
        self.nodes: list[NodeProto] = []
        # Names of the float16 (True) and float32 (False) versions of each tensor.
        self.names: dict[tuple[str, bool], str] = {(given.name, False): given.name for given in index.model.graph.input}
        self.taken = {name for node in index.nodes for name in (*node.input, *node.output)} | self.outputs
        self.places = [
            Places() if node.name in fp32_nodes else places
            for node, places in zip(index.nodes, half_places(index), strict=True)
        ]

    def written(self) -> onnx.ModelProto:
        weights = self._weights()
        for node, places in zip(self.index.nodes, self.places, strict=True):
            self._write(node, places)
        return self.index.rebuilt(self.nodes, weights)

    def _weights(self) -> list[TensorProto]:
        """Store each weight in the type, or the two types, in which nodes read it."""
        read: dict[str, set[bool]] = defaultdict(set)
        for node, places in zip(self.index.nodes, self.places, strict=True):
            for index, name in enumerate(node.input):
                if name in self.index.weights:
                    read[name].add(index in places.inputs)
        stored = [tensor for name, tensor in self.index.initializers.items() if name not in self.index.weights]
        for name, kinds in read.items():
            for half in sorted(kinds):
                value = self.index.weights[name]
                if half:
                    with np.errstate(over="ignore"):  # infinity, as on a GPU
                        value = value.astype(np.float16)
                own = name if len(kinds) == 1 or not half else unused_name(f"{name}.half", self.taken)
                self.names[name, half] = own
                stored.append(numpy_helper.from_array(value.astype(np.float32) if self.emulate else value, own))
        return stored

    def _write(self, node: NodeProto, places: Places) -> None:
        made = NodeProto()
        made.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name in self.index.weights or name in self.index.floats:
                made.input[index] = self._converted(name, index in places.inputs, any_type=node.op_type in SHAPE_OPS)
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
                made.output[index] = unused_name(f"{name}.half", self.taken) if name in self.outputs else name
                self.names[name, True] = made.output[index]
                if name in self.outputs:
                    casts.append((made.output[index], name))
            else:
                self.names[name, False] = self.names[name, True] = name
                if node.op_type not in EXACT_OPS:
                    made.output[index] = unused_name(f"{name}.exact", self.taken)
                    casts.append((made.output[index], name))
        self.nodes.append(made)
        for given, name in casts:
            if self.emulate:
                self._round(given, name)
            else:
                self._cast(given, name, TensorProto.FLOAT)
                self.names[name, False] = name

    def _converted(self, name: str, half: bool, *, any_type: bool) -> str:
        """Return the name of a tensor in the type that a node needs, after a cast if necessary."""
        if any_type and (name, not half) in self.names:
            half = not half
        if (name, half) not in self.names:
            given = self.names[name, not half]
            wanted = unused_name(f"{name}.half" if half else f"{name}.float", self.taken)
            if self.emulate:
                self._round(given, wanted)
            else:
                self._cast(given, wanted, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
            self.names[name, half] = wanted
        return self.names[name, half]

    def _round(self, given: str, wanted: str) -> None:
        between = unused_name(f"{wanted}.rounded", self.taken)
        self._cast(given, between, TensorProto.FLOAT16)
        self._cast(between, wanted, TensorProto.FLOAT)

    def _cast(self, given: str, wanted: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [given], [wanted], name=f"cast {wanted}", to=kind))
