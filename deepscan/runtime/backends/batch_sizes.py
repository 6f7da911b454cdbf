"""Batch sizes that are run on a GPU, and the memory they need.

A CUDA graph repeats what was captured, for one batch size. So there is one for each power of two up to the largest
batch, and one for that; a batch is filled up to the next size, and the answers to what was filled in are dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deepscan.runtime.backends.backends import refuse_device_items
from deepscan.runtime.cuda.device import DeviceArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.backends.backends import Items
    from deepscan.runtime.cuda.device import Pixels

FLOAT_BYTES = 4
PIXEL_KIND = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the GPU that hold whatever batch is run; sizes take turns, so they share it.

    Attributes:
        pixels: the input, uint8.
        answers: each output, float32. As many are held on the host, page-locked, for the logits.
    """

    pixels: int
    answers: int


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the sizes that graphs are captured for, ascending: 1, 2, 4, ... and the largest.

    Args:
        largest: at least 1.
    """
    powers = [1 << exponent for exponent in range(largest.bit_length())]
    return tuple(dict.fromkeys([*powers, largest]))


def size_for(count: int, sizes: tuple[int, ...]) -> int:
    """Return the smallest of the ascending sizes that holds `count` items.

    Raises:
        ValueError: none does, or there are no items.
    """
    fitting = [size for size in sizes if 1 <= count <= size]
    if not fitting:
        raise ValueError(f"{count} items in a batch of 1 to {sizes[-1]}")
    return fitting[0]


def memory_for(item_shape: tuple[int, ...], largest: int) -> Memory:
    """Return the memory for batches of up to `largest` items of a shape."""
    return Memory(pixels=largest * math.prod(item_shape), answers=largest * FLOAT_BYTES)


def fill(pixels: NDArray[np.uint8], batch: Items, size: int) -> None:
    """Put a batch into the first `size` places of an input in the host's memory, and black into those that are left.

    Args:
        pixels: [largest batch, *item]; changed.
        batch: N items, N <= size.
        size: to be run.

    Raises:
        TypeError, ValueError: an item is of another kind or shape, or lies on a device.
    """
    refuse_device_items(batch)
    refuse_other_items(batch, pixels.shape[1:])
    for place, item in zip(pixels, batch, strict=False):
        place[...] = item
    pixels[len(batch) : size] = 0


def refuse_other_items(batch: Items, item_shape: tuple[int, ...]) -> None:
    """Refuse items that are not pixels of one shape; they would be squeezed in, or run over.

    Raises:
        TypeError, ValueError: an item is of another kind or shape.
    """
    for item in batch:
        if item.shape != item_shape:
            raise ValueError(f"items of shape {item.shape} instead of {item_shape}")
        if kind_of(item) != PIXEL_KIND:
            raise TypeError(f"items of {kind_of(item)} instead of {PIXEL_KIND}")


def kind_of(item: Pixels) -> np.dtype[Any]:
    """Return the kind of an item's numbers."""
    return item.kind if isinstance(item, DeviceArray) else item.dtype
