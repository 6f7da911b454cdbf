"""Operators that move, cut and join, and compute nothing; see `torch_operators`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from deepscan.runtime.backends.torch_values import Unsupported, fixed, integers, number

# Beyond the end of any axis. ONNX writes the largest numbers of 64 bits, of which torch warns.
BEYOND: Final = 2**31


def concat(*parts: Tensor, axis: int) -> Tensor:
    """Concat."""
    return torch.cat(parts, dim=axis)


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Gather: one place, which removes the axis, or a list of places counted from the start."""
    if not fixed(indices, "indices").ndim:
        return x.select(axis, int(indices))
    if indices.ndim > 1 or indices.min() < 0:
        raise Unsupported("takes a table of places, or counts them from the end")
    return torch.index_select(x, axis, indices)


def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """Reshape: -1 is what is left, 0 what the input has in this place."""
    sizes = integers(shape, "shape")
    if allowzero and 0 in sizes:
        raise Unsupported("makes an empty tensor")
    return x.reshape([x.size(axis) if size == 0 else size for axis, size in enumerate(sizes)])


def slices(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    """Slice, with constant bounds; a negative step counts from the end, which torch reaches by turning the axis."""
    begins, stops = (
        [max(-BEYOND, min(BEYOND, bound)) for bound in integers(given, "bounds")] for given in (starts, ends)
    )
    along = list(range(len(begins))) if axes is None else integers(axes, "axes")
    strides = [1] * len(begins) if steps is None else integers(steps, "steps")
    for begin, stop, axis, step in zip(begins, stops, along, strides, strict=True):
        part = slice(begin, stop, step)
        if step < 0:
            if begin < -1 or stop == BEYOND:  # ONNX lets these mean something else, depending on the size
                raise Unsupported(f"walks backwards from {begin} to {stop}")
            # Place i is place -1 - i, counted from the other end, once the axis is turned.
            x, part = x.flip(axis), slice(-1 - begin, -1 - stop, -step)
        before: tuple[Any, ...] = (slice(None),) * axis if axis >= 0 else (...,)
        x = x[(*before, part, *(slice(None),) * (-1 - axis))]
    return x


def split(x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, num_outputs: int | None = None) -> Sequence[Tensor]:
    """Split, into given sizes or into equal parts, of which the last may be smaller."""
    if sizes is not None:
        return torch.split(x, integers(sizes, "split"), dim=axis)
    if num_outputs is None:
        raise Unsupported("says neither sizes nor number of its parts")
    return torch.chunk(x, num_outputs, dim=axis)


def squeeze(x: Tensor, axes: Tensor) -> Tensor:
    """Squeeze of named axes."""
    return torch.squeeze(x, tuple(integers(axes, "axes")))


def transpose(x: Tensor, *, perm: list[int]) -> Tensor:
    """Transpose; with the channels moved forward, the result lies in memory channels last."""
    return x.permute(perm)


def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """Unsqueeze of one axis."""
    return x.unsqueeze(int(number(axes, "axis")))
