"""Arithmetic of a graph: operations of its convolutions and matrix products for one item.

Multiplications and additions (twice the multiply-adds) of Conv, Gemm and MatMul count, with padding as if it were data.
Activations, pools, normalization, softmax, dequantization and subgraphs do not.
"""

from __future__ import annotations

import math
from typing import Final

import onnx

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.graph_index import GraphIndex, attribute, parsed_model

PER_MULTIPLY_ADD: Final = 2


def flop_of(model: bytes, *, source: str) -> int:
    """Count the floating-point operations that a graph needs for a batch of one.

    Args:
        model: bytes of the ONNX file; free axes of its inputs count as 1. Quantized graphs must be in Q/DQ form.
        source: name of the file, for messages.

    Returns:
        Multiplications plus additions.

    Raises:
        ModelError: it is not an ONNX file, or a shape cannot be inferred.
    """
    try:
        index = GraphIndex(parsed_model(model, source=source), batch=1)
    except onnx.shape_inference.InferenceError as error:
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
