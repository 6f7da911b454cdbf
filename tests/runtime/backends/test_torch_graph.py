"""Graphs as torch modules: what is folded, what is kept in memory and how, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deepscan.errors import ModelError
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.backends.torch_graph import module_from_onnx
from tests.runtime.drawn_graphs import (
    SEEDS,
    Array,
    check,
    few,
    graph_of,
    normalization,
    numbers,
    torch_results,
    whole,
    windows,
)


@few
@given(window=windows(), bias=st.booleans(), twice=st.booleans(), epsilon=st.sampled_from([1e-5, 1e-3]), seed=SEEDS)
def test_batch_normalization_behind_a_convolution(
    window: dict[str, Any], bias: bool, twice: bool, epsilon: float, seed: int
) -> None:
    kernel = window["kernel_shape"]
    x = numbers(seed, (2, 3, *(5 for _ in kernel)))
    constants = {"w": numbers(seed + 1, (4, 3, *kernel)), "c": numbers(seed + 2, (4,)), **normalization(seed + 3, 4)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"] if bias else ["x", "w"], ["z"], **window),
        helper.make_node("BatchNormalization", ["z", *"sbmv"], ["n"], epsilon=epsilon),
        # Where the convolution's own result is wanted too, nothing may be folded into it.
        helper.make_node("Add", ["n", "z" if twice else "n"], ["y"]),
    ]
    model = graph_of(nodes, x.shape, constants)
    check(model, x, tolerance=1e-4)
    assert ("batch_norm" in module_from_onnx(model).code) == twice


def half_graph(seed: int) -> onnx.ModelProto:
    """A convolution, its normalization and a scale, all in halves; weights are stored so, too."""
    halves = {name: value.astype(np.float16) for name, value in normalization(seed, 4).items()}
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["z", *"sbmv"], ["n"]),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.array(0.5, np.float16))),
        helper.make_node("Mul", ["n", "k"], ["p"]),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    return graph_of(nodes, (2, 3, 6, 6), {"w": numbers(seed, (4, 3, 3, 3)).astype(np.float16), **halves})


@few
@given(seed=SEEDS)
def test_halves_are_halves_or_are_widened(seed: int) -> None:
    model, x = half_graph(seed), numbers(seed + 1, (2, 3, 6, 6))
    (expected,) = Session(model.SerializeToString(), source="half", device="cpu", threads=1).run(None, {"x": x})
    for widen, kind in ((True, torch.float32), (False, torch.float16)):
        module = module_from_onnx(model, widen=widen)
        assert {value.dtype for value in module.buffers()} == {kind}
        np.testing.assert_allclose(torch_results(model, x, widen=widen)[0], expected, rtol=0.02, atol=0.02)
    wide, narrow = torch_results(model, x, widen=True)[0], torch_results(model, x)[0]
    assert np.array_equal(narrow, narrow.astype(np.float16))
    assert not np.array_equal(wide, wide.astype(np.float16))


def test_weights_stored_as_halves_are_widened_once_and_nothing_is_kept_twice() -> None:
    weight, constants = numbers(0, (4, 4, 3, 3)).astype(np.float16), normalization(1, 4)
    nodes = [
        helper.make_node("Cast", ["w.half"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["z"]),
        helper.make_node("BatchNormalization", ["z", *"sbmv"], ["n"]),
        # The same weights twice more, and a result that nobody wants.
        helper.make_node("Conv", ["n", "w"], ["o"]),
        helper.make_node("Conv", ["o", "w"], ["y"]),
        helper.make_node("Conv", ["x", "unwanted"], ["nothing"]),
    ]
    model = graph_of(nodes, (1, 4, 9, 9), {"w.half": weight, "unwanted": numbers(2, (9, 4, 3, 3)), **constants})
    # One by one, as they are moved to a GPU.
    buffers = [buffer for _, buffer in module_from_onnx(model).named_buffers(remove_duplicate=False)]
    assert sorted(buffer.numel() for buffer in buffers) == [4, weight.size, weight.size]
    assert {buffer.dtype for buffer in buffers} == {torch.float32}
    assert sum(buffer.untyped_storage().nbytes() for buffer in buffers) == 4 * (4 + 2 * weight.size)
    check(model, numbers(3, (1, 4, 9, 9)), tolerance=1e-3)


@pytest.mark.parametrize("axes", [2, 3])
def test_maps_lie_channels_last(axes: int) -> None:
    """Pixels that come with their channels last are never laid out anew."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, axes + 1, *range(1, axes + 1)]),
        helper.make_node("Conv", ["t", "w"], ["z"]),
        helper.make_node("BatchNormalization", ["z", *"sbmv"], ["y"]),
    ]
    weight = numbers(0, (4, 3, *[3] * axes))
    x = numbers(1, (2, *[6] * axes, 3))
    module = module_from_onnx(graph_of(nodes, x.shape, {"w": weight, **normalization(2, 4)}))
    layout = torch.channels_last if axes == 2 else torch.channels_last_3d
    (found,) = module(torch.from_numpy(x))
    assert found.is_contiguous(memory_format=layout)
    assert [value.is_contiguous(memory_format=layout) for value in module.buffers() if value.ndim > 1] == [True]


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs", "reason"),
    [
        ("Guess", {}, [], "it does not know the operator Guess of 'odd'"),
        (
            "Softmax",
            {"axis": 1, "temperature": 2.0},
            [],
            "Softmax 'odd' got an unexpected keyword argument 'temperature'",
        ),
        ("Relu", {"slope": 0.1}, [], "Relu 'odd' got an unexpected keyword argument 'slope'"),
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}, [], "MaxPool 'odd' has a kernel of .* ceil_mode 1"),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, [], "padding SAME_UPPER"),
        ("MaxPool", {"kernel_shape": [2]}, [], r"has a kernel of \[2\]"),
        ("Conv", {}, ["x"], "Conv 'odd' computes its weights"),
        ("Conv", {"kernel_shape": [5, 5]}, ["w"], r"weights of \[3, 3\], a kernel of \[5, 5\]"),
        ("Conv", {"auto_pad": "VALID"}, ["w"], "padding VALID"),
        ("Pad", {"mode": "edge"}, ["ones"], "Pad 'odd' has mode edge"),
        ("Resize", {"mode": "cubic"}, ["", "factors"], "Resize 'odd' has modes cubic, half_pixel"),
        ("Resize", {"mode": "linear"}, ["", "factors"], "has modes linear, half_pixel"),
        ("Reshape", {}, ["x"], "Reshape 'odd' computes its shape"),
        ("Reshape", {"allowzero": 1}, ["zero"], "makes an empty tensor"),
        ("ReduceMean", {}, [], "ReduceMean 'odd' names no axes"),
        ("Cast", {"to": TensorProto.BFLOAT16}, [], "Cast 'odd' casts to BFLOAT16"),
        ("Gather", {}, ["minus"], "Gather 'odd' takes a table of places, or counts them from the end"),
        ("Gather", {}, ["table"], "Gather 'odd' takes a table of places"),
        ("Slice", {}, ["minus", "zero", "zero", "minus"], "Slice 'odd' walks backwards from -3"),
        ("Split", {}, [], "says neither sizes nor number"),
        ("LayerNormalization", {"axis": 1}, ["factors"], r"has axis 1, a scale of \[4\]"),
        ("BatchNormalization", {"training_mode": 1}, ["factors"] * 4, "is in training mode"),
        ("Div", {}, ["ones"], "Div 'odd' divides whole numbers"),
        ("Relu", {}, ["nowhere"], "it takes 'nowhere', which nothing gives"),
        ("Relu", {}, ["double"], "'double' is of type DOUBLE"),
    ],
)
def test_what_is_not_supported_is_named(
    operator: str, attributes: dict[str, Any], inputs: list[str], reason: str
) -> None:
    constants: dict[str, Array] = {
        "w": numbers(0, (3, 4, 3, 3)),
        "factors": np.ones(4, dtype=np.float32),
        "ones": whole(1, 1, 1, 1),
        "zero": whole(0),
        "minus": whole(-3),
        "table": whole(0, 1).reshape(1, 2),
    }
    if "double" in inputs:
        constants["double"] = np.ones(4)
    node = helper.make_node(operator, ["x", *inputs], ["y"], name="odd", **attributes)
    with pytest.raises(ModelError, match=rf"^It cannot be run with torch \(.*{reason}.*\): use another backend\.$"):
        module_from_onnx(graph_of([node], (2, 4, 4, 4), constants), source="It")


def test_values_beside_the_first_are_not_supported() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "places"], name="odd", kernel_shape=[2, 2])
    with pytest.raises(ModelError, match="MaxPool 'odd' gives more than one value"):
        module_from_onnx(graph_of([node], (1, 1, 4, 4), {}))


def test_other_versions_of_the_operators_are_refused() -> None:
    model = graph_of([helper.make_node("Relu", ["x"], ["y"])], (2,), {}, opset=17)
    with pytest.raises(
        ModelError, match=r"^It is not of opset 18 with one input, which torch needs: export it again\.$"
    ):
        module_from_onnx(model, source="It")
