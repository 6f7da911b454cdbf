from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.calibration.qdq import (
    LARGEST_BIAS,
    SMALLEST_SCALE,
    Scale,
    quantized_bias,
    quantized_weights,
    scale_of,
)
from deepscan.export.tensor_values import Range
from deepscan.runtime.artifacts.artifacts import Activations

numbers = st.floats(min_value=-1e6, max_value=1e6, width=32)
schemes: list[Activations] = ["affine", "symmetric"]


def integer_for(value: float, scale: Scale) -> int:
    """Quantize as ONNX defines it."""
    limits = np.iinfo(scale.zero_point.dtype)
    return int(np.clip(np.rint(value / float(scale.step)) + int(scale.zero_point), limits.min, limits.max))


def real(integer: int, scale: Scale) -> float:
    return (integer - int(scale.zero_point)) * float(scale.step)


@pytest.mark.parametrize("activations", schemes)
@given(ends=st.tuples(numbers, numbers), share=st.floats(0, 1))
def test_every_number_of_a_range_comes_back_within_half_a_step(
    activations: Activations, ends: tuple[float, float], share: float
) -> None:
    seen = Range(min(ends), max(ends))
    scale = scale_of(seen, activations)
    assert np.isfinite(scale.step)
    assert scale.step > 0
    value = seen.low + share * (seen.high - seen.low)
    slack = 1e-6 * max(abs(seen.low), abs(seen.high))
    assert abs(real(integer_for(value, scale), scale) - value) <= float(scale.step) / 2 + slack
    assert real(integer_for(0.0, scale), scale) == 0.0


@pytest.mark.parametrize("activations", schemes)
@given(ends=st.tuples(numbers, numbers))
def test_no_step_is_wasted(activations: Activations, ends: tuple[float, float]) -> None:
    low, high = min(0.0, *ends), max(0.0, *ends)
    step = float(scale_of(Range(*sorted(ends)), activations).step)
    if high - low > 1e-9:
        assert step == pytest.approx((high - low) / 255 if activations == "affine" else max(-low, high) / 127)


def test_the_types_say_which_scheme_it_is() -> None:
    assert scale_of(Range(-1.0, 3.0), "symmetric") == Scale(np.float32(3 / 127), np.int8(0))
    assert scale_of(Range(-1.0, 3.0), "symmetric").zero_point.dtype == np.int8
    affine = scale_of(Range(-1.0, 3.0), "affine")
    assert affine.zero_point == 64
    assert affine.zero_point.dtype == np.uint8


def test_behind_a_relu_zero_is_the_integer_zero() -> None:
    assert scale_of(Range(0.5, 3.0), "affine") == Scale(np.float32(3 / 255), np.uint8(0))


@pytest.mark.parametrize("activations", schemes)
def test_what_is_always_zero_has_a_step_all_the_same(activations: Activations) -> None:
    assert scale_of(Range(0.0, 0.0), activations).step == 1
    assert scale_of(Range(0.0, 1e-40), activations).step == np.float32(SMALLEST_SCALE)


@given(
    seed=st.integers(0, 1000), axis=st.integers(0, 1), exponents=st.lists(st.integers(-12, 12), min_size=4, max_size=4)
)
def test_each_output_channel_has_its_own_step(seed: int, axis: int, exponents: list[int]) -> None:
    sizes = 10.0 ** np.array(exponents)
    weights = np.random.default_rng(seed).normal(size=(4, 6)) * sizes[:, None]
    given_weights = (weights if axis == 0 else weights.T).astype(np.float32)
    integers, steps = quantized_weights(given_weights, axis=axis, bias=None, input_step=np.float32(1))
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    by_channel = (integers if axis == 0 else integers.T).astype(np.float64) * steps[:, None].astype(np.float64)
    expected = (given_weights if axis == 0 else given_weights.T).astype(np.float64)
    assert (np.abs(by_channel - expected) <= steps[:, None] * (0.5 + 1e-5)).all()
    assert np.abs(integers).max(axis=1 - axis).tolist() == [127] * 4


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = np.array([[0, 0], [1, -2]], np.float32)
    integers, steps = quantized_weights(weights, axis=0, bias=None, input_step=np.float32(1))
    assert integers.tolist() == [[0, 0], [64, -127]]
    assert (steps > 0).all()


@given(seed=st.integers(0, 1000), bias_size=st.floats(1e-3, 1e3), weight_size=st.floats(1e-12, 1e3))
def test_a_bias_comes_back_within_half_a_unit_however_small_the_weights(
    seed: int, bias_size: float, weight_size: float
) -> None:
    random = np.random.default_rng(seed)
    weights = (random.normal(size=(3, 5)) * weight_size).astype(np.float32)
    bias = (random.normal(size=3) * bias_size).astype(np.float32)
    input_step = np.float32(0.01)
    _, steps = quantized_weights(weights, axis=0, bias=bias, input_step=input_step)
    sums, units = quantized_bias(bias, steps, input_step)
    assert sums.dtype == np.int32
    assert (np.abs(sums.astype(np.int64)) <= LARGEST_BIAS + 1000).all()
    assert (np.abs(sums * units.astype(np.float64) - bias) <= units * 0.5 + 1e-6 * np.abs(bias)).all()
    np.testing.assert_allclose(units, steps * input_step, rtol=1e-6)
