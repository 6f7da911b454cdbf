"""Reading ONNX files, and an index of a graph: producers and consumers of each tensor, constants, types and shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from deepscan.errors import ModelError

Shape: TypeAlias = tuple[int | None, ...]

# Operators whose output holds values of their first input, and no others.
DATA_MOVEMENT_OPS: Final = frozenset(
    "Expand Flatten Gather Identity MaxPool Pad ReduceMax Reshape Slice Split Squeeze Transpose Unsqueeze".split()
)
# Values of a constant that shapes may depend on; a larger one is a weight, of which only its own shape matters.
LARGEST_SHAPE: Final = 1024


def parsed_model(model: bytes, *, source: str) -> onnx.ModelProto:
    """Parse an ONNX file that needs no other one: no artifact may.

    Raises:
        ModelError: it is none, or a tensor lies in another file.
    """
    try:
        parsed = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ModelError(f"{source} is not an ONNX file: export the detector again.") from error
    for tensor in _tensors(parsed):  # OpenVINO would read them wherever they are, absolute paths and all
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(f"{source} keeps {tensor.name!r} in another file, which is not read: export it again.")
    return parsed


def _tensors(message: Any) -> Iterator[TensorProto]:
    """Yield the tensors in any part of a model: also of subgraphs, functions and sparse tensors."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Iterable) else [value]:
                yield from _tensors(part)


class GraphIndex:
    """An index of a graph without subgraphs, as all exported detectors are.

    Attributes:
        model: the graph as it was given; never changed.
        nodes: copies of its nodes in their order, each with a unique name; nodes that only hold a constant or widen one
            to float32 are replaced by an initializer.
        initializers: the constants that these nodes read, by name.
        dtypes: ONNX element type of each tensor that is not a constant, by name.
        shapes: sizes of each such tensor whose rank is known, None where a size is free.
        producers: for each tensor that a node computes, the node.
        consumers: for each tensor the nodes that read it, once for each time.
    """

    def __init__(self, model: onnx.ModelProto, *, batch: int | None = None, strict: bool = False) -> None:
        """Index a graph; every free axis of its inputs takes the size `batch`, unless that is None.

        Raises:
            onnx.shape_inference.InferenceError: shapes or types contradict each other, and `strict` is set.
        """
        self.model = model
        held = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[NodeProto] = []
        taken: set[str] = set()
        for node in model.graph.node:
            value = _constant(node, held)
            if value is not None:
                held[node.output[0]] = numpy_helper.from_array(value, node.output[0])
                continue
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = unused_name(node.name or f"{node.op_type} {node.output[0]}", taken)
            self.nodes.append(copy)
        read = {name for node in self.nodes for name in node.input}
        self.initializers = {name: tensor for name, tensor in held.items() if name in read}
        self.dtypes: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}
        for info in self._inferred(batch, strict=strict):
            if info.name in held:
                continue
            tensor = info.type.tensor_type
            self.dtypes[info.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.shapes[info.name] = tuple(
                    axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.shape.dim
                )
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)

    @cached_property
    def constants(self) -> dict[str, NDArray[Any]]:
        """Values of the initializers, by name."""
        return {name: numpy_helper.to_array(tensor) for name, tensor in self.initializers.items()}

    @cached_property
    def floats(self) -> frozenset[str]:
        """Names of the float32 tensors that are not constants."""
        return frozenset(name for name, dtype in self.dtypes.items() if dtype == TensorProto.FLOAT)

    @cached_property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Values of the float32 initializers, by name."""
        return {name: value for name, value in self.constants.items() if value.dtype == np.float32}

    def nbytes(self, tensor: str) -> int:
        """Return the size of a tensor in bytes; free sizes count as 1."""
        width: int = helper.tensor_dtype_to_np_dtype(self.dtypes[tensor]).itemsize
        return width * math.prod(self.sizes(tensor))

    def is_known(self, tensor: str) -> bool:
        """Tell whether all sizes of a tensor are known."""
        return tensor in self.shapes and None not in self.shapes[tensor]

    def sizes(self, tensor: str) -> tuple[int, ...]:
        """Return the sizes of a tensor; free ones count as 1."""
        return tuple(size or 1 for size in self.shapes.get(tensor, ()))

    def rebuilt(self, nodes: Sequence[NodeProto], initializers: Sequence[TensorProto]) -> onnx.ModelProto:
        """Return a model of other nodes and constants with the inputs, outputs and metadata of this one."""
        source = self.model
        graph = helper.make_graph(nodes, source.graph.name, source.graph.input, source.graph.output, initializers)
        made = helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)
        made.producer_name, made.producer_version = source.producer_name, source.producer_version
        made.metadata_props.extend(source.metadata_props)
        return made

    def part(self, nodes: list[NodeProto], inputs: Iterable[str], outputs: Iterable[str]) -> onnx.ModelProto:
        """Return a model of some of the nodes, between the tensors that enter them and those to return."""
        read = {name for node in nodes for name in node.input}
        constants = [tensor for name, tensor in self.initializers.items() if name in read]
        entering = [helper.make_tensor_value_info(name, self.dtypes[name], None) for name in inputs]
        leaving = [ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(nodes, self.model.graph.name, entering, leaving, constants)
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)

    def _inferred(self, batch: int | None, *, strict: bool) -> list[ValueInfoProto]:
        """Infer types and shapes with large constants as inputs: their values do not matter, and take long to copy."""
        graph = onnx.GraphProto(name=self.model.graph.name, node=self.nodes, input=self.model.graph.input)
        for given in graph.input:
            for axis in given.type.tensor_type.shape.dim:
                if batch is not None and not axis.HasField("dim_value"):
                    axis.dim_value = batch
        inputs = list(graph.input)
        for tensor in self.initializers.values():
            if math.prod(tensor.dims) <= LARGEST_SHAPE:
                graph.initializer.append(tensor)
            else:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        for output in self.model.graph.output:  # without their shapes, which name the free batch
            leaving = ValueInfoProto(name=output.name)
            leaving.type.tensor_type.elem_type = output.type.tensor_type.elem_type
            graph.output.append(leaving)
        bare = onnx.ModelProto(graph=graph, ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        inferred = shape_inference.infer_shapes(bare, strict_mode=strict, data_prop=True).graph
        return [*inputs, *inferred.value_info, *inferred.output]


def unused_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, made from another one, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return the value of a node's attribute."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _constant(node: NodeProto, held: Mapping[str, TensorProto]) -> NDArray[Any] | None:
    """Return the value of a node that only holds a constant, or widens one to float32."""
    if node.op_type == "Constant":
        entry = node.attribute[0]
        value = helper.get_attribute_value(entry)
        if isinstance(value, TensorProto):
            return numpy_helper.to_array(value)
        return np.array(value, dtype=np.float32) if entry.name in {"value_float", "value_floats"} else None
    if node.op_type != "Cast" or node.input[0] not in held or attribute(node, "to", None) != TensorProto.FLOAT:
        return None
    return numpy_helper.to_array(held[node.input[0]]).astype(np.float32)
