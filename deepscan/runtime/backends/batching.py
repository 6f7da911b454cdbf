"""How items are batched: side by side on a CPU; on a GPU in a few batch sizes, and the memory that these need.

The libraries tune themselves to each batch size that they meet, and keep memory for it. So there are few: the powers of
two up to the largest batch, and that. A batch is filled up to the next size, and the logits of the filling are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from deepscan.runtime.backends.contract import refuse_device_items
from deepscan.runtime.cuda.pixels import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.backends.contract import Items

# As many as the pipeline hands over at once.
CROPS_AT_ONCE: Final = 16
CLIPS_AT_ONCE: Final = 1
# Each holds the activations of one crop.
MOST_STREAMS: Final = 8
PIXEL_KIND = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class Streams:
    """Division of the threads of a CPU.

    Attributes:
        count: how many items are computed side by side.
        threads: of each.
        max_batch: items taken at once.
    """

    count: int
    threads: int
    max_batch: int


def streams_for(kind: Literal["frame", "clip"], threads: int) -> Streams:
    """Divide the threads of a CPU among items.

    Every item is a batch of its own: then an answer cannot depend on its neighbors, which no runtime promises. HFF's
    last digits do in ONNX Runtime. It also costs less: fewer threads wait for each other within an item. Measured on
    two cores, two crops side by side took 9 to 18 % less processor time than batches of 8 in ONNX Runtime, and 3 to
    16 % less in OpenVINO, for `lite`, HFF, RECCE and CADDM. A clip takes hundreds of megabytes inside, and has work
    for all threads.

    Args:
        kind: of the detector.
        threads: at least 1; a few stay idle where they cannot be shared out evenly.
    """
    if kind == "clip":
        return Streams(count=1, threads=threads, max_batch=CLIPS_AT_ONCE)
    each = -(-threads // MOST_STREAMS)
    return Streams(count=threads // each, threads=each, max_batch=CROPS_AT_ONCE)


def batch_sizes(largest: int) -> tuple[int, ...]:
    """Return the sizes that batches are run in, ascending: 1, 2, 4, ... and the largest.

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


def padded_count(count: int) -> int:
    """Return the number of pictures that a batch is filled up to on a GPU: the next power of four.

    Every size and shape that a library meets for the first time costs it a search for its fastest algorithms.
    """
    size = 1
    while size < count:
        size *= 4
    return size


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
