"""Arithmetic of a graph: operations of its convolutions and matrix products for one item.

Multiplications and additions (twice the multiply-adds) of Conv, Gemm and MatMul count, with padding as if it were data.
Activations, pools, normalization, softmax, dequantization and subgraphs do not.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final

import onnx

from deepscan.runtime.artifacts.graph_index import GraphIndex, attribute

PER_MULTIPLY_ADD: Final = 2


def flop_of(model: bytes) -> int | None:
    """Count the multiplications and additions of a graph for a batch of one.

    Free axes of its inputs count as 1. Quantized graphs must be in Q/DQ form. None if a shape cannot be inferred.
    """
    with suppress(onnx.shape_inference.InferenceError, KeyError):
        index = GraphIndex(onnx.load_model_from_string(model), batch=1)
        shapes = {name: tuple(tensor.dims) for name, tensor in index.initializers.items()}
        shapes |= {name: index.sizes(name) for name in index.shapes if index.is_known(name)}
        return PER_MULTIPLY_ADD * sum(_multiply_adds(node, shapes) for node in index.nodes)
    return None


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
