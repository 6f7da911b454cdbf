"""Operators as torch functions: each against ONNX Runtime, with drawn attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper

from tests.runtime.drawn_graphs import (
    SEEDS,
    check,
    check_node,
    few,
    graph_of,
    normalization,
    numbers,
    sizes,
    whole,
    windows,
)


@few
@given(window=windows(), group=st.integers(1, 2), per_group=st.integers(1, 2), bias=st.booleans(), seed=SEEDS)
def test_convolutions(window: dict[str, Any], group: int, per_group: int, bias: bool, seed: int) -> None:
    kernel = window["kernel_shape"]
    x = numbers(seed, (2, group * per_group, *(5 for _ in kernel)))
    weight = numbers(seed + 1, (2 * group, per_group, *kernel))
    check_node("Conv", x, weight, numbers(seed + 2, (2 * group,)) if bias else None, group=group, **window)


@few
@given(seed=SEEDS)
def test_batch_normalization_of_anything_else(seed: int) -> None:
    check_node("BatchNormalization", numbers(seed, (2, 4, 3, 3)), *normalization(seed, 4).values(), momentum=1.0)


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
def test_clips_and_layer_normalization(bounds: tuple[float | None, float | None], bias: bool, seed: int) -> None:
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
