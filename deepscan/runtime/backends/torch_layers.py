"""Convolution, pooling, normalization and resizing by the rules of ONNX; see `torch_operators`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from deepscan.runtime.backends.torch_values import Unsupported, fixed, integers, number

# By the number of axes behind batch and channels.
CONVOLUTIONS: Final[dict[int, Callable[..., Tensor]]] = {2: functional.conv2d, 3: functional.conv3d}
POOLS: Final[dict[int, Callable[..., Tensor]]] = {2: functional.max_pool2d, 3: functional.max_pool3d}


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_shape: list[int] | None = None,
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """Conv, in two or three dimensions; padding may differ between the sides."""
    kernel = list(fixed(weight, "weights").shape[2:])
    if kernel_shape not in (None, kernel) or auto_pad != "NOTSET" or len(kernel) not in CONVOLUTIONS:
        raise Unsupported(f"has weights of {kernel}, a kernel of {kernel_shape} and padding {auto_pad}")
    ones = [1] * len(kernel)
    begins, ends = _sides(pads, len(kernel))
    if begins != ends:
        x, begins = functional.pad(x, _torch_order(begins, ends)), [0] * len(kernel)
    function = CONVOLUTIONS[len(kernel)]
    return function(x, weight, bias, strides or ones, begins, dilations or ones, group)


def max_pool(
    x: Tensor,
    *,
    kernel_shape: list[int],
    strides: list[int] | None = None,
    pads: list[int] | None = None,
    dilations: list[int] | None = None,
    ceil_mode: int = 0,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """MaxPool; what is padded never wins."""
    if ceil_mode or auto_pad != "NOTSET" or len(kernel_shape) not in POOLS:
        raise Unsupported(f"has a kernel of {kernel_shape}, ceil_mode {ceil_mode} and padding {auto_pad}")
    ones = [1] * len(kernel_shape)
    begins, ends = _sides(pads, len(kernel_shape))
    if begins != ends or any(2 * pad > size for pad, size in zip(begins, kernel_shape, strict=True)):
        x, begins = functional.pad(x, _torch_order(begins, ends), value=-torch.inf), [0] * len(kernel_shape)
    return POOLS[len(kernel_shape)](x, kernel_shape, strides or ones, begins, dilations or ones)


def _sides(pads: list[int] | None, axes: int) -> tuple[list[int], list[int]]:
    """Return the padding before and behind, for each axis; torch itself pads both alike, and pools by half a kernel."""
    both = pads or [0] * 2 * axes
    return both[:axes], both[axes:]


def _torch_order(begins: list[int], ends: list[int]) -> list[int]:
    """Return padding from the last axis to the first, each with both sides, as torch wants it."""
    return [size for pair in zip(reversed(begins), reversed(ends), strict=True) for size in pair]


def pad(x: Tensor, pads: Tensor, value: Tensor | None = None, *, mode: str = "constant") -> Tensor:
    """Pad with a constant, or cut where the padding is negative; without named axes."""
    if mode != "constant":
        raise Unsupported(f"has mode {mode}")
    sizes = integers(pads, "padding")
    fill = 0.0 if value is None else number(value, "value")
    return functional.pad(x, _torch_order(*_sides(sizes, len(sizes) // 2)), value=fill)


def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    training_mode: int = 0,
) -> Tensor:
    """BatchNormalization with the statistics of the training."""
    if training_mode:
        raise Unsupported("is in training mode")
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


def folded(
    weight: Tensor,
    shift: Tensor | None,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    training_mode: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the weights [O, I, ...] and biases [O] of a convolution that does the normalization behind it too.

    The arithmetic is in float64; the result has the type of the weights. `shift` is the convolution's own bias.
    """
    if training_mode:
        raise Unsupported("is in training mode")
    values = (fixed(value, "statistics").double() for value in (scale, bias, mean, variance))
    factor, offset, center, spread = values
    factor = factor / (spread + epsilon).sqrt()
    before = -center if shift is None else fixed(shift, "biases").double() - center
    wide = fixed(weight, "weights").double() * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return wide.to(weight.dtype), (offset + before * factor).to(weight.dtype)


def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    """LayerNormalization over the last axes, with statistics in float32, which is what torch does."""
    sizes = list(fixed(scale, "scale").shape)
    if axis != -len(sizes) or stash_type != 1:
        raise Unsupported(f"has axis {axis}, a scale of {sizes} and stash_type {stash_type}")
    return functional.layer_norm(x, sizes, scale, bias, epsilon)


def resize(
    x: Tensor,
    _region: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    axes: list[int] | None = None,
    antialias: int = 0,
    exclude_outside: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
) -> Tensor:
    """Resize of height and width by whole factors, to the nearest pixel before, or linearly from corner to corner."""
    how = (mode, coordinate_transformation_mode, nearest_mode if mode == "nearest" else "")
    if how not in (("nearest", "asymmetric", "floor"), ("linear", "align_corners", "")):
        raise Unsupported(f"has modes {mode}, {coordinate_transformation_mode} and {nearest_mode}")
    if antialias or exclude_outside or keep_aspect_ratio_policy != "stretch" or axes not in (None, [2, 3]):
        raise Unsupported(f"has axes {axes}, antialias, exclude_outside or keeps the aspect ratio")
    if sizes is not None and axes is not None:
        if mode == "nearest":
            raise Unsupported("has sizes with mode nearest")
        return functional.interpolate(x, integers(sizes, "sizes"), mode="bilinear", align_corners=True)
    if scales is None:
        raise Unsupported("has sizes for all axes")
    *leading, down, across = fixed(scales, "scales").tolist()
    if any(factor != 1 for factor in leading) or down % 1 or across % 1:
        raise Unsupported(f"has scales {scales}")
    if mode == "nearest":
        return functional.interpolate(x, scale_factor=(down, across), mode="nearest")
    return functional.interpolate(x, scale_factor=(down, across), mode="bilinear", align_corners=True)
