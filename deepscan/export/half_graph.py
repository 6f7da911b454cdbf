"""Which tensors of a float32 graph can be float16: what ONNX's own operator definitions allow, node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, defs, helper, numpy_helper, shape_inference

# These give values that they were given, or their negatives: what goes in as float16 comes out without rounding.
MOVES: Final = frozenset(
    "Abs Clip Concat Expand Flatten Gather Identity Max MaxPool Min Neg Pad ReduceMax ReduceMin Relu Reshape Slice "
    "Split Squeeze Tile Transpose Unsqueeze Where".split()
)
# These look at the shape of a tensor only, so its type does not matter to them.
SHAPES_ONLY: Final = frozenset({"Shape", "Size"})
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Places:
    """At which inputs and outputs a node that computes in float16 has float16; elsewhere types stay as they are."""

    inputs: frozenset[int]
    outputs: frozenset[int]

    def __bool__(self) -> bool:
        """Tell whether the node can compute in float16 at all."""
        return bool(self.inputs or self.outputs)


@dataclass(frozen=True, eq=False)
class FloatGraph:
    """A float32 graph, taken apart.

    Attributes:
        model: the graph as it was given.
        nodes: without those that only hold or widen weights; each has a name.
        weights: float32 [...] constants, by name, also those that were stored as float16 and widened.
        others: constants of other types.
        shapes: of every float32 tensor that is no weight, by name; None where a size is free. Tensors of unknown rank
            have no sizes at all.
        places: for each node, in order.
    """

    model: onnx.ModelProto
    nodes: list[NodeProto]
    weights: dict[str, NDArray[np.float32]]
    others: list[TensorProto]
    shapes: dict[str, Shape]
    places: list[Places]


def read_graph(model: onnx.ModelProto) -> FloatGraph:
    """Take a graph apart; it has no subgraphs, as exported artifacts have none."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {name: numpy_helper.to_array(tensor) for name, tensor in held.items() if _is_float(tensor.data_type)}
    nodes = []
    for node in model.graph.node:
        constant = _constant(node, held)
        if constant is None:
            nodes.append(_named(node))
        else:
            weights[node.output[0]] = constant
    read = {name for node in nodes for name in node.input}
    others = [tensor for name, tensor in held.items() if name in read and name not in weights]
    shapes = _float_shapes(model, nodes, weights, others)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    floats = shapes.keys() | weights.keys()
    places = [_places(node, floats, versions) for node in nodes]
    return FloatGraph(model, nodes, weights, others, shapes, places)


def _is_float(kind: int) -> bool:
    return kind == TensorProto.FLOAT


def _constant(node: NodeProto, held: dict[str, TensorProto]) -> NDArray[np.float32] | None:
    """Return the float32 value of a node that only holds a constant, or widens one."""
    if node.op_type == "Cast" and node.input[0] in held and _is_float(helper.get_node_attr_value(node, "to")):
        tensor = held[node.input[0]]
        return numpy_helper.to_array(tensor).astype(np.float32) if tensor.data_type == TensorProto.FLOAT16 else None
    if node.op_type != "Constant":
        return None
    value = helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value) if _is_float(value.data_type) else None
    return np.array(value, dtype=np.float32) if node.attribute[0].name in {"value_float", "value_floats"} else None


def _named(node: NodeProto) -> NodeProto:
    if node.name:
        return node
    named = NodeProto()
    named.CopyFrom(node)
    named.name = f"{node.op_type} {node.output[0]}"
    return named


def _float_shapes(
    model: onnx.ModelProto,
    nodes: list[NodeProto],
    weights: dict[str, NDArray[np.float32]],
    others: list[TensorProto],
) -> dict[str, Shape]:
    """Infer types and shapes, with weights as inputs: their values do not matter and may be large."""
    stand_ins = [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in weights.items()]
    inputs = [*model.graph.input, *stand_ins]
    graph = helper.make_graph(nodes, "shapes", inputs, model.graph.output, others)
    bare = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    inferred = shape_inference.infer_shapes(bare, data_prop=True).graph
    shapes = {}
    for value in (*model.graph.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if _is_float(kind.elem_type):
            sizes = kind.shape.dim
            shapes[value.name] = tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
    return shapes


def _places(node: NodeProto, floats: set[str], versions: dict[str, int]) -> Places:
    if node.op_type in SHAPES_ONLY or not defs.has(node.op_type, versions.get(node.domain, 0), node.domain):
        return Places(frozenset(), frozenset())
    schema = defs.get_schema(node.op_type, versions[node.domain], node.domain)
    allowed = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if "tensor(float16)" in constraint.allowed_type_strs
    }
    # Behind the last declared input or output, a node may have more of the same type.
    taken = [schema.inputs[min(i, len(schema.inputs) - 1)].type_str for i in range(len(node.input))]
    given = [schema.outputs[min(i, len(schema.outputs) - 1)].type_str for i in range(len(node.output))]
    inputs = frozenset(i for i, name in enumerate(node.input) if name in floats and taken[i] in allowed)
    bound = {taken[i] for i in inputs}
    outputs = frozenset(
        i for i, name in enumerate(node.output) if name in floats and (given[i] in bound or node.op_type == "Cast")
    )
    return Places(inputs, outputs)
