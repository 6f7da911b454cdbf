"""An ONNX graph, read so that one can ask what is constant, who makes and who reads a tensor, and how large it is."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

WEIGHT_TYPES: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


@dataclass(frozen=True, eq=False)
class Reading:
    """A graph, taken apart.

    Attributes:
        model: with a name for each node, no two alike, and all constants as initializers, in float32.
        constants: the values of the initializers, by name.
        makers: for each tensor that a node makes, the node.
        readers: for each tensor the nodes that read it, once for each time.
        types: of every tensor that is no constant, as ONNX numbers them.
        shapes: of every float32 tensor that is no constant; None where a size is free.
    """

    model: onnx.ModelProto
    constants: dict[str, NDArray[Any]]
    makers: dict[str, NodeProto]
    readers: dict[str, list[NodeProto]]
    types: dict[str, int]
    shapes: dict[str, tuple[int | None, ...]]

    def bytes_of_one(self, tensor: str) -> int:
        """Return how much memory a float32 tensor takes for a batch of one; free sizes count as 1."""
        return 4 * math.prod(size or 1 for size in self.shapes[tensor])


def read_graph(model: onnx.ModelProto) -> Reading:
    """Take a graph apart; the model that is given stays as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    taken: set[str] = set()
    for node in graph.node:
        value = _constant(node, held)
        if value is None:
            node.name = _free(node.name or f"{node.op_type} {node.output[0]}", taken)
            nodes.append(node)
        else:
            held[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    read = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in held.items() if name in read]
    made = helper.make_graph(nodes, graph.name, graph.input, graph.output, kept)
    made.doc_string = graph.doc_string
    copy.graph.CopyFrom(made)
    makers = {name: node for node in copy.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in copy.graph.node:
        for name in node.input:
            readers[name].append(node)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in copy.graph.initializer}
    infos = _inferred(copy)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    shapes = {info.name: _sizes(info) for info in infos if types[info.name] == TensorProto.FLOAT}
    return Reading(copy, constants, makers, readers, types, shapes)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _constant(node: NodeProto, held: dict[str, TensorProto]) -> NDArray[Any] | None:
    """Return the value of a node that only holds a constant, or widens one to float32."""
    if node.op_type == "Constant" and node.attribute[0].name == "value":
        return numpy_helper.to_array(node.attribute[0].t)
    if node.op_type != "Cast" or node.input[0] not in held:
        return None
    widens = helper.get_node_attr_value(node, "to") == TensorProto.FLOAT
    return numpy_helper.to_array(held[node.input[0]]).astype(np.float32) if widens else None


def _inferred(model: onnx.ModelProto) -> list[ValueInfoProto]:
    """Infer types and shapes with weights as inputs: their values do not matter, and they are large."""
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type in WEIGHT_TYPES]
    others = [tensor for tensor in model.graph.initializer if tensor.data_type not in WEIGHT_TYPES]
    stand_ins = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in weights]
    inputs = [*model.graph.input, *stand_ins]
    graph = helper.make_graph(model.graph.node, "shapes", inputs, model.graph.output, others)
    bare = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    inferred = shape_inference.infer_shapes(bare, data_prop=True).graph
    return [*inferred.value_info, *inferred.output, *model.graph.input]


def _sizes(info: ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in info.type.tensor_type.shape.dim)
