"""Operators as torch functions: each against ONNX Runtime, with drawn attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deepscan.errors import ModelError
from deepscan.runtime.sessions import Session
from deepscan.runtime.torch_graph import module_from_onnx

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


@few
@given(window=windows(), group=st.integers(1, 2), per_group=st.integers(1, 2), bias=st.booleans(), seed=SEEDS)
def test_convolutions(window: dict[str, Any], group: int, per_group: int, bias: bool, seed: int) -> None:
    kernel = window["kernel_shape"]
    x = numbers(seed, (2, group * per_group, *(5 for _ in kernel)))
    weight = numbers(seed + 1, (2 * group, per_group, *kernel))
    check_node("Conv", x, weight, numbers(seed + 2, (2 * group,)) if bias else None, group=group, **window)


def normalisation(seed: int, channels: int) -> dict[str, Array]:
    """Scale, bias, mean and variance."""
    scale, bias, mean, variance = numbers(seed, (4, channels))
    return {"s": scale, "b": bias, "m": mean, "v": np.abs(variance) + 0.1}


@few
@given(window=windows(), bias=st.booleans(), twice=st.booleans(), epsilon=st.sampled_from([1e-5, 1e-3]), seed=SEEDS)
def test_batch_normalisation_behind_a_convolution(
    window: dict[str, Any], bias: bool, twice: bool, epsilon: float, seed: int
) -> None:
    kernel = window["kernel_shape"]
    x = numbers(seed, (2, 3, *(5 for _ in kernel)))
    constants = {"w": numbers(seed + 1, (4, 3, *kernel)), "c": numbers(seed + 2, (4,)), **normalisation(seed + 3, 4)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"] if bias else ["x", "w"], ["z"], **window),
        helper.make_node("BatchNormalization", ["z", *"sbmv"], ["n"], epsilon=epsilon),
        # Where the convolution's own result is wanted too, nothing may be folded into it.
        helper.make_node("Add", ["n", "z" if twice else "n"], ["y"]),
    ]
    model = graph_of(nodes, x.shape, constants)
    check(model, x, tolerance=1e-4)
    assert ("batch_norm" in module_from_onnx(model).code) == twice


@few
@given(seed=SEEDS)
def test_batch_normalisation_of_anything_else(seed: int) -> None:
    check_node("BatchNormalization", numbers(seed, (2, 4, 3, 3)), *normalisation(seed, 4).values(), momentum=1.0)


@few
@given(window=windows(), seed=SEEDS)
def test_max_pools(window: dict[str, Any], seed: int) -> None:
    # All numbers are below zero: padding with zeros would win.
    x = -np.abs(numbers(seed, (2, 3, *(6 for _ in window["kernel_shape"]))))
    check_node("MaxPool", x, ceil_mode=0, storage_order=0, **window)


@few
@given(pads=sizes(8, -1, 3), value=st.none() | st.floats(-9, 9, width=32), seed=SEEDS)
def test_pads_come_in_the_order_of_the_axes_and_may_cut(pads: list[int], value: float | None, seed: int) -> None:
    fill = None if value is None else np.array(value, dtype=np.float32)
    check_node("Pad", numbers(seed, (2, 3, 4, 5)), whole(*pads), fill, mode="constant")


@st.composite
def cuts(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """Start, end, axis and step of slices along different axes."""
    found = []
    for axis in draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)):
        if draw(st.booleans()):
            start, end = (draw(st.integers(-7, 7) | st.sampled_from([2**63 - 1, -(2**63)])) for _ in range(2))
            found.append((start, end, axis, draw(st.integers(1, 3))))
        else:
            start, end = draw(st.integers(-1, 7)), draw(st.integers(-7, 7) | st.just(-(2**63)))
            found.append((start, end, axis - 3 * draw(st.booleans()), draw(st.integers(-3, -1))))
    return found


@few
@given(cut=cuts(), seed=SEEDS)
def test_slices_forwards_and_backwards(cut: list[tuple[int, int, int, int]], seed: int) -> None:
    starts, ends, axes, steps = zip(*cut, strict=True)
    check_node("Slice", numbers(seed, (4, 5, 6)), whole(*starts), whole(*ends), whole(*axes), whole(*steps))


def test_slices_without_axes_begin_with_the_first() -> None:
    check_node("Slice", numbers(0, (4, 5, 6)), whole(1, 2), whole(3, 9))


@few
@given(data=st.data(), seed=SEEDS)
def test_reshapes_with_what_is_left_and_what_was_there(data: st.DataObject, seed: int) -> None:
    shape = data.draw(st.permutations([2, 3, 4, 5]))
    wanted = data.draw(st.sampled_from([shape, [shape[0], shape[1], 20], [shape[0], -1], [120], [-1, 1]]))
    assume(np.prod(shape) == np.prod(wanted) or -1 in wanted)
    if -1 not in wanted and data.draw(st.booleans()):
        wanted = [*wanted[:-1], -1]
    kept = [
        0 if place < 4 and size == shape[place] and data.draw(st.booleans()) else size
        for place, size in enumerate(wanted)
    ]
    check_node("Reshape", numbers(seed, tuple(shape)), whole(*kept), allowzero=0)


def test_a_reshape_may_say_that_zero_means_zero() -> None:
    check_node("Reshape", numbers(0, (2, 6)), whole(3, -1), allowzero=1)


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceSum"])
@few
@given(axes=st.sets(st.integers(0, 3), min_size=1), negative=st.booleans(), keepdims=st.integers(0, 1), seed=SEEDS)
def test_reductions(operator: str, axes: set[int], negative: bool, keepdims: int, seed: int) -> None:
    named = whole(*(axis - 4 * negative for axis in axes))
    check_node(operator, numbers(seed, (2, 3, 4, 5)), named, keepdims=keepdims)


@few
@given(down=st.integers(1, 5), across=st.integers(1, 5), height=st.integers(1, 6), seed=SEEDS)
def test_resizes_to_the_pixel_before(down: int, across: int, height: int, seed: int) -> None:
    check_node(
        "Resize",
        numbers(seed, (2, 3, height, 5)),
        None,
        np.array([1, 1, down, across], dtype=np.float32),
        coordinate_transformation_mode="asymmetric",
        mode="nearest",
        nearest_mode="floor",
        cubic_coeff_a=-0.75,
        extrapolation_value=0.0,
    )


@few
@given(size=sizes(2, 1, 12), factors=sizes(2, 1, 3), by_size=st.booleans(), seed=SEEDS)
def test_resizes_from_corner_to_corner(size: list[int], factors: list[int], by_size: bool, seed: int) -> None:
    x = numbers(seed, (2, 3, 4, 5))
    how: dict[str, Any] = {"coordinate_transformation_mode": "align_corners", "mode": "linear"}
    if by_size:
        check_node("Resize", x, None, None, whole(*size), axes=[2, 3], **how)
    else:
        check_node("Resize", x, None, np.array([1, 1, *factors], dtype=np.float32), **how)


@few
@given(
    transposed=st.tuples(st.booleans(), st.booleans()),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, -2.0]),
    bias=st.booleans(),
    seed=SEEDS,
)
def test_products_of_matrices(transposed: tuple[bool, bool], alpha: float, beta: float, bias: bool, seed: int) -> None:
    a, b = numbers(seed, (3, 4)), numbers(seed + 1, (4, 5))
    check_node(
        "Gemm",
        a.T.copy() if transposed[0] else a,
        b.T.copy() if transposed[1] else b,
        numbers(seed + 2, (5,)) if bias else None,
        transA=int(transposed[0]),
        transB=int(transposed[1]),
        alpha=alpha,
        beta=beta,
    )


@few
@given(axis=st.integers(-3, 2), parts=st.integers(1, 3), named=st.booleans(), seed=SEEDS)
def test_splits(axis: int, parts: int, named: bool, seed: int) -> None:
    x = numbers(seed, (5, 5, 5))
    if named:
        check_node("Split", x, whole(*[1] * (parts - 1), 6 - parts), outputs=parts, axis=axis)
    else:
        check_node("Split", x, outputs=parts, axis=axis, num_outputs=parts)


@few
@given(
    shape=st.sampled_from([(3, 4, 5), (4, 5), (5,), (1,), (), (2, 1, 4, 1)]), constant_first=st.booleans(), seed=SEEDS
)
def test_numbers_are_repeated_along_missing_axes(shape: tuple[int, ...], constant_first: bool, seed: int) -> None:
    x, other = numbers(seed, (2, 3, 4, 5)), numbers(seed + 1, shape) + 3
    names = ["c", "x"] if constant_first else ["x", "c"]
    assume(shape != (2, 1, 4, 1) or not constant_first)
    for operator in ("Add", "Sub", "Mul", "Div"):
        check(graph_of([helper.make_node(operator, names, ["y"])], x.shape, {"c": other}), x)


@few
@given(axis=st.integers(-4, 3), place=st.integers(0, 1), seed=SEEDS)
def test_operators_along_one_axis(axis: int, place: int, seed: int) -> None:
    x = numbers(seed, (2, 3, 4, 5))
    check_node("Softmax", x, axis=axis)
    check_node("Concat", x, x, axis=axis)
    check_node("Gather", x, np.array(place - 2), axis=axis)
    check_node("Gather", x, whole(place, 0, 1, place), axis=axis)
    check_node("Unsqueeze", x, whole(axis))
    check_node("Squeeze", x[:, :1], whole(1))


def test_softmax_is_along_the_last_axis_unless_told_otherwise() -> None:
    check_node("Softmax", numbers(0, (2, 3, 4)))


@few
@given(order=st.permutations([0, 1, 2, 3]), seed=SEEDS)
def test_transposes(order: list[int], seed: int) -> None:
    check_node("Transpose", numbers(seed, (2, 3, 4, 5)), perm=order)


@few
@given(bounds=st.tuples(st.none() | st.just(-0.5), st.none() | st.just(0.75)), bias=st.booleans(), seed=SEEDS)
def test_clips_and_layer_normalisation(bounds: tuple[float | None, float | None], bias: bool, seed: int) -> None:
    x = numbers(seed, (2, 3, 4))
    limits = [None if bound is None else np.array(bound, dtype=np.float32) for bound in bounds]
    assume(any(limit is not None for limit in limits))
    check_node("Clip", x, *limits)
    check_node("LayerNormalization", x, x[0, 0], x[1, 1] if bias else None, axis=-1, epsilon=1e-3, stash_type=1)


@pytest.mark.parametrize("operator", ["Abs", "Erf", "Identity", "Relu", "Sigmoid", "Tanh"])
def test_functions_of_single_numbers(operator: str) -> None:
    check_node(operator, 3 * numbers(0, (2, 300)))


def test_products_of_many_matrices() -> None:
    x = numbers(0, (2, 3, 4, 5))
    check_node("MatMul", x, numbers(1, (5, 6)))
    check_node("MatMul", x, numbers(2, (3, 5, 6)))


def half_graph(seed: int) -> onnx.ModelProto:
    """A convolution, its normalisation and a scale, all in halves; weights are stored so, too."""
    halves = {name: value.astype(np.float16) for name, value in normalisation(seed, 4).items()}
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
    weight, constants = numbers(0, (4, 4, 3, 3)).astype(np.float16), normalisation(1, 4)
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
    buffers = list(module_from_onnx(model).buffers())
    assert sorted(buffer.numel() for buffer in buffers) == [4, weight.size, weight.size]
    assert {buffer.dtype for buffer in buffers} == {torch.float32}
    held = {buffer.untyped_storage().data_ptr(): buffer.untyped_storage().nbytes() for buffer in buffers}
    assert sum(held.values()) == 4 * (4 + 2 * weight.size)
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
    module = module_from_onnx(graph_of(nodes, x.shape, {"w": weight, **normalisation(2, 4)}))
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
    with pytest.raises(ModelError, match=rf"^It cannot be run with torch \(.*{reason}.*\): use another --backend\.$"):
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
