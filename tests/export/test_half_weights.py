from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deepscan.export.half import store_exact_halves

SHAPE = (3, 4)
halves = st.floats(width=16, allow_nan=False)
singles = st.floats(width=32)
tensors = st.one_of(
    st.lists(halves, min_size=12, max_size=12),
    st.lists(singles, min_size=12, max_size=12),
    st.lists(st.one_of(halves, singles), min_size=12, max_size=12),
).map(lambda values: np.array(values, dtype=np.float32).reshape(SHAPE))


def model_of(*weights: NDArray[Any]) -> onnx.ModelProto:
    """Make a model that gives its input plus a weight, for each weight, and each weight as it is."""
    names = [f"w{number}" for number in range(len(weights))]
    nodes = [helper.make_node("Add", ["x", name], [f"sum {name}"]) for name in names]
    nodes += [helper.make_node("Identity", [name], [f"same {name}"]) for name in names]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, SHAPE) for node in nodes]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
    held = [numpy_helper.from_array(value, name) for value, name in zip(weights, names, strict=True)]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answers(model: onnx.ModelProto) -> list[bytes]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.linspace(-3, 3, 12, dtype=np.float32).reshape(SHAPE)
    return [value.tobytes() for value in session.run(None, {"x": picture})]


def stored(model: onnx.ModelProto) -> list[NDArray[Any]]:
    return [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]


def survives(value: NDArray[np.float32]) -> bool:
    with np.errstate(over="ignore"):
        return value.tobytes() == value.astype(np.float16).astype(np.float32).tobytes()


@settings(deadline=None)
@given(st.lists(tensors, min_size=1, max_size=3))
def test_outputs_are_the_same_to_the_bit_and_only_exact_tensors_shrink(weights: list[NDArray[np.float32]]) -> None:
    model = model_of(*weights)
    before = answers(model)
    count = store_exact_halves(model)
    onnx.checker.check_model(model, full_check=True)
    assert answers(model) == before
    exact = [survives(value) and not np.isnan(value).any() for value in weights]
    assert [held.dtype == np.float16 for held in stored(model)] == exact
    assert count == sum(exact)


@pytest.mark.parametrize(
    ("value", "shrinks"),
    [
        (0.0, True),
        (-0.0, True),
        (1.5, True),
        (65504.0, True),
        (2.0**-24, True),
        (float("inf"), True),
        (65520.0, False),
        (2.0**-25, False),
        (0.1, False),
        (1.0 + 2.0**-20, False),
        (1e-9, False),
        (float("nan"), False),
    ],
)
def test_a_tensor_shrinks_if_float16_holds_all_its_values(value: float, shrinks: bool) -> None:
    weight = np.ones(SHAPE, dtype=np.float32)
    weight[1, 2] = value
    model = model_of(weight)
    before = answers(model)
    assert store_exact_halves(model) == shrinks
    assert stored(model)[0].dtype == (np.float16 if shrinks else np.float32)
    assert answers(model) == before


def test_tensors_of_other_types_and_those_already_stored_so_are_left_alone() -> None:
    model = model_of(np.ones(SHAPE, dtype=np.float32))
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3), "indices"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2), "doubles"))
    assert store_exact_halves(model) == 1
    again = model.SerializeToString()
    assert store_exact_halves(model) == 0
    assert model.SerializeToString() == again
    assert [held.dtype for held in stored(model)] == [np.float16, np.int64, np.float64]
