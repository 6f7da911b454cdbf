"""Batch sizes that are run on a GPU, and the memory they need.

A CUDA graph repeats what was captured, for one batch size. So there is one for each power of two up to the largest
batch, and one for that; a batch is filled up to the next size, and the answers to what was filled in are dropped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the GPU that hold whatever batch is run; sizes take turns, so they share it.

    Attributes:
        pixels: the input, uint8. As many are held on the host, page-locked.
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


def fill(pixels: NDArray[np.uint8], batch: NDArray[np.uint8], size: int) -> None:
    """Put a batch into the first `size` places of the input, and black into those that are left.

    Args:
        pixels: [largest batch, *item]; changed.
        batch: [N, *item], N <= size.
        size: to be run.

    Raises:
        TypeError, ValueError: the items are of another type or shape.
    """
    if batch.shape[1:] != pixels.shape[1:]:
        raise ValueError(f"items of shape {batch.shape[1:]} instead of {pixels.shape[1:]}")
    np.copyto(pixels[: len(batch)], batch, casting="no")
    pixels[len(batch) : size] = 0
