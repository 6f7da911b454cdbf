"""Small graphs, run with torch and with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.backends.torch_graph import module_from_onnx

Array = NDArray[Any]
SEEDS = st.integers(0, 2**32 - 1)
NEXT_TO_NOTHING = 1e-5
# A session is made for each example.
few = settings(max_examples=30)


def graph_of(
    nodes: list[NodeProto], shape: tuple[int, ...], constants: dict[str, Array], outputs: int = 1, opset: int = 18
) -> onnx.ModelProto:
    """A graph from `x` to `y`, or to `y0`, `y1`, ..."""
    names = ["y"] if outputs == 1 else [f"y{number}" for number in range(outputs)]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def numbers(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def torch_results(model: onnx.ModelProto, x: Array, *, widen: bool = False) -> list[Array]:
    with torch.inference_mode():
        return [value.numpy() for value in module_from_onnx(model, widen=widen)(torch.from_numpy(x))]


def check(model: onnx.ModelProto, x: Array, *, tolerance: float = NEXT_TO_NOTHING) -> list[Array]:
    """Both give the same, in shape, type and values."""
    expected = Session(model.SerializeToString(), source="drawn", device="cpu", threads=1).run(None, {"x": x})
    found = torch_results(model, x)
    for right, ours in zip(expected, found, strict=True):
        assert (right.shape, right.dtype) == (ours.shape, ours.dtype)
        np.testing.assert_allclose(ours, right, rtol=tolerance, atol=tolerance)
    return found


def check_node(operator: str, x: Array, *inputs: Array | None, outputs: int = 1, **attributes: Any) -> list[Array]:
    """One operator, whose first input is `x` and whose others are constants, or left out."""
    constants = {f"c{place}": value for place, value in enumerate(inputs) if value is not None}
    names = ["x", *(f"c{place}" if value is not None else "" for place, value in enumerate(inputs))]
    while not names[-1]:  # ONNX Runtime crashes where the bias of a LayerNormalization is named so
        names.pop()
    given_names = ["y"] if outputs == 1 else [f"y{number}" for number in range(outputs)]
    node = helper.make_node(operator, names, given_names, name="node", **attributes)
    return check(graph_of([node], x.shape, constants, outputs), x)


def whole(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def sizes(axes: int, low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=axes, max_size=axes)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Kernels, strides, pads and dilations over two or three axes."""
    axes = draw(st.sampled_from([2, 3]))
    kernel = draw(sizes(axes, 1, 3))
    sides = [draw(st.integers(0, size - 1)) for size in kernel * 2]
    if draw(st.booleans()):
        sides = sides[:axes] * 2
    return {
        "kernel_shape": kernel,
        "strides": draw(sizes(axes, 1, 2)),
        "pads": sides,
        "dilations": draw(sizes(axes, 1, 2)),
    }


def normalization(seed: int, channels: int) -> dict[str, Array]:
    """Scale, bias, mean and variance."""
    scale, bias, mean, variance = numbers(seed, (4, channels))
    return {"s": scale, "b": bias, "m": mean, "v": np.abs(variance) + 0.1}
