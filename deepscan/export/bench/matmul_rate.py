"""Rate at which this machine multiplies large matrices: a yardstick for detectors."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from deepscan.export.bench.latency import measured_latency
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import Device

RatePrecision: TypeAlias = Literal["fp32", "fp16"]
# Large enough for arithmetic to dominate, small enough for a measurement of seconds.
SIDES: Final[dict[Device, int]] = {"cpu": 2048, "cuda": 8192}
# Number of consecutive products in the graph, so that the other nodes hardly count.
PRODUCTS: Final[dict[Device, int]] = {"cpu": 2, "cuda": 4}
OPSET: Final = 18
IR_VERSION: Final = 9
SEED: Final = 0


def matmul_rate(*, device: Device, precision: RatePrecision, threads: int, seconds: float, side: int) -> float:
    """Return the multiplications plus additions per second of matrix products of `side` x `side`, by the median run.

    Only one number is copied to the device and one from it. On a CPU, ONNX Runtime widens fp16 to float32.

    Raises:
        MachineError: the device cannot be used.
    """
    products = PRODUCTS[device]
    graph = _chain(precision, side, products)
    session = Session(graph, source="matrix products", device=device, threads=threads)
    feeds = {"x": np.zeros((1, 1), dtype=np.float32)}
    latency = measured_latency(lambda: session.run(None, feeds), seconds=seconds)
    return products * 2 * side**3 / latency.p50_seconds


def _chain(precision: RatePrecision, side: int, products: int) -> bytes:
    """Return a graph from a number x to the largest value of ((M + x) M) M ...; nothing can be computed beforehand."""
    matrix = np.random.default_rng(SEED).standard_normal((side, side), dtype=np.float32)
    matrix /= np.float32(np.sqrt(side))  # keeps products at the size of their factors
    kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    weights = numpy_helper.from_array(matrix.astype(np.float16 if precision == "fp16" else np.float32), "m")
    nodes = [helper.make_node("Cast", ["x"], ["shift"], to=kind), helper.make_node("Add", ["m", "shift"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{step}", "m"], [f"p{step + 1}"]) for step in range(products)]
    nodes.append(helper.make_node("ReduceMax", [f"p{products}"], ["largest"], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("largest", kind, [])],
        [weights],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()
    return model
