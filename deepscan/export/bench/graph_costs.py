"""The arithmetic of a graph: what its convolutions and matrix products need for one item.

Counted are the multiplications and the additions (so twice the multiply-adds) of Conv, Gemm and MatMul, padding
included as if it were data. Nothing else is: activations, pools, normalization, softmax and the widening of quantized
values are left out, as are nodes inside the branches of If and the bodies of Loop, which exported detectors have not.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import onnx
from google.protobuf.message import DecodeError

from deepscan.errors import ModelError

Shape: TypeAlias = tuple[int, ...]
# Tensors of more values than this are weights: for shapes, only their own shapes matter.
LARGEST_SHAPE: Final = 1024
PER_MULTIPLY_ADD: Final = 2


def flop_of(model: bytes, *, source: str) -> int:
    """Count the floating-point operations that a graph needs for a batch of one.

    Args:
        model: the ONNX file's bytes; every free axis of its inputs counts as 1. Quantized graphs must have their
            Conv, Gemm and MatMul between QuantizeLinear and DequantizeLinear, as those of deepscan do.
        source: its name, for messages.

    Returns:
        Multiplications plus additions.

    Raises:
        ModelError: it is no ONNX file, or a shape that is needed cannot be inferred.
    """
    try:
        shapes, nodes = _inferred(onnx.load_model_from_string(model))
    except (DecodeError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"The shapes of {source} cannot be inferred ({error}): export the detector again.") from error
    try:
        return PER_MULTIPLY_ADD * sum(_multiply_adds(node, shapes) for node in nodes)
    except KeyError as error:
        raise ModelError(f"{source} does not tell the shape of {error}: export the detector again.") from error


def _inferred(model: onnx.ModelProto) -> tuple[dict[str, Shape], list[onnx.NodeProto]]:
    """Return all shapes that are known for a batch of one, by name, and the nodes of the graph."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = 1
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > LARGEST_SHAPE:
            tensor.ClearField("raw_data")  # or hundreds of megabytes would be copied to infer shapes
    del model.graph.value_info[:]  # they may still speak of a free batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        axes = kind.shape.dim
        known = kind.HasField("shape") and all(axis.HasField("dim_value") for axis in axes)
        if known and value.name not in weights:
            shapes[value.name] = tuple(axis.dim_value for axis in axes)
    return shapes, list(graph.node)


def _multiply_adds(node: onnx.NodeProto, shapes: dict[str, Shape]) -> int:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    outputs = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":
        return outputs * math.prod(shapes[node.input[1]][1:])  # weights [out, in / groups, *kernel]
    first = shapes[node.input[0]]
    if node.op_type == "MatMul":
        return outputs * first[-1]
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return outputs * first[0 if transposed else 1]
