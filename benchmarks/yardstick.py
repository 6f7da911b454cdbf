"""A yardstick for inference: the arithmetic of a graph, and the rate of this machine's matrix products."""

from __future__ import annotations

import math
import statistics
import time

import numpy as np
import onnx

SIDE = 2048
ROUNDS = 7


def gigaflops_of(model: bytes) -> float:
    """Return the multiplications and additions of a graph's convolutions and matrix products for one item, in 1e9."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    known = [*graph.value_info, *graph.output, *graph.input]
    shapes = {value.name: _item_shape(value) for value in known}
    shapes |= {tensor.name.removesuffix(".half"): list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weights = shapes[node.input[1]]
            per_output = math.prod(weights[1:])  # Conv: [out, in / groups, k, k]; Gemm with a transposed B: [out, in]
            total += 2 * per_output * math.prod(shapes[node.output[0]])
    return total / 1e9


def matmul_gigaflops() -> float:
    """Return the rate of float32 matrix products of 2048 x 2048, all processors, median."""
    a = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        a @ a
        rates.append(2 * SIDE**3 / (time.perf_counter() - started) / 1e9)
    return statistics.median(rates)


def _item_shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
