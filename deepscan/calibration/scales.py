"""The arithmetic of 8-bit numbers: from a range to a scale and a zero point, and from weights to integers.

A real number x is stored as q = round(x / scale) + zero_point, and stands for (q - zero_point) * scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.artifacts.artifacts import Activations

LEVELS: Final = 255
LARGEST_INT8: Final = 127
# The product of two such scales is still a normal float32.
SMALLEST_SCALE: Final = 1e-18
# A bias is stored in int32, and the sum it is added to needs room too.
LARGEST_BIAS: Final = 2**30

Integers: TypeAlias = NDArray[np.uint8] | NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Range:
    """Which real numbers a tensor's integers have to stand for, from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scale:
    """How integers stand for real numbers.

    Attributes:
        step: the real number that 1 stands for, a float32 above zero.
        zero_point: the integer that stands for 0; its type is the integers' type.
    """

    step: np.float32
    zero_point: np.uint8 | np.int8


def scale_of(seen: Range, activations: Activations) -> Scale:
    """Return the finest scale whose integers cover a range.

    Args:
        seen: is widened to contain 0, which is always exact: padding and ReLU put it into almost every tensor.
        activations: `affine` gives uint8, with zero point 0 where nothing is negative; `symmetric` int8 around 0.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if activations == "symmetric":
        return Scale(_step(max(-low, high) / LARGEST_INT8), np.int8(0))
    step = _step((high - low) / LEVELS)
    return Scale(step, np.uint8(min(LEVELS, round(-low / float(step)))))


def _step(size: float) -> np.float32:
    # Where everything is zero, any step will do; 1 is no odd one.
    return np.float32(1.0) if size == 0.0 else np.float32(max(size, SMALLEST_SCALE))


def quantized_weights(
    weights: NDArray[np.float32], *, axis: int, bias: NDArray[np.float32] | None, input_step: np.float32
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8 around 0, with a step for each output channel.

    Args:
        weights: of any shape.
        axis: of the output channels.
        bias: [channels], or None. Where it is so large beside a channel's weights that int32 cannot hold it in units
            of `input_step` x the channel's step, that step becomes larger; such a channel is its bias and little else.
        input_step: of what the weights are multiplied with.

    Returns:
        The integers, in -127..127, and the steps [channels].
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights.astype(np.float64)).max(axis=others)
    steps = np.where(largest == 0.0, 1.0, np.maximum(largest / LARGEST_INT8, SMALLEST_SCALE))
    if bias is not None:
        steps = np.maximum(steps, np.abs(bias.astype(np.float64)) / (float(input_step) * LARGEST_BIAS))
    rounded = steps.astype(np.float32)
    shape = [1] * weights.ndim
    shape[axis] = -1
    integers = np.rint(weights / rounded.astype(np.float64).reshape(shape))
    return np.clip(integers, -LARGEST_INT8, LARGEST_INT8).astype(np.int8), rounded


def quantized_bias(
    bias: NDArray[np.float32], weight_steps: NDArray[np.float32], input_step: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Round a bias [channels] to int32 in the units of the sum it is added to; return it with those units."""
    steps = (weight_steps * input_step).astype(np.float32)
    return np.rint(bias / steps.astype(np.float64)).astype(np.int32), steps
