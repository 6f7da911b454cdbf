"""The arithmetic of a graph: what its convolutions and matrix products need for one item.

Counted are the multiplications and the additions (so twice the multiply-adds) of Conv, Gemm and MatMul, padding
included as if it were data. Nothing else is: activations, pools, normalization, softmax and the widening of quantized
values are left out, as are nodes inside the branches of If and the bodies of Loop, which exported detectors have not.
"""

from __future__ import annotations

import math
from typing import Final

import onnx
from google.protobuf.message import DecodeError

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.graph_index import GraphIndex, attribute

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
        index = GraphIndex(onnx.load_model_from_string(model), batch=1)
    except (DecodeError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"The shapes of {source} cannot be inferred ({error}): export the detector again.") from error
    shapes = {name: tuple(tensor.dims) for name, tensor in index.initializers.items()}
    shapes |= {name: index.sizes(name) for name in index.shapes if index.is_known(name)}
    try:
        return PER_MULTIPLY_ADD * sum(_multiply_adds(node, shapes) for node in index.nodes)
    except KeyError as error:
        raise ModelError(f"{source} does not tell the shape of {error}: export the detector again.") from error


def _multiply_adds(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return 0
    outputs = math.prod(shapes[node.output[0]])
    if node.op_type == "Conv":
        return outputs * math.prod(shapes[node.input[1]][1:])  # weights [out, in / groups, *kernel]
    first = shapes[node.input[0]]
    if node.op_type == "MatMul":
        return outputs * first[-1]
    return outputs * first[0 if attribute(node, "transA", 0) else 1]
