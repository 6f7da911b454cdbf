"""A device with memory of its own, as the pipeline sees it: arrays, queues of work, and memory that is used again.

The contract is small on purpose: everything above it (pictures, crops, batches) runs on any device that keeps it.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from deepscan.errors import DeviceMemoryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KernelName = Literal["resample", "warp", "copy_items", "sum_luma"]
# Memory is taken in these steps, so that arrays of nearly one size share what is given back.
GRAIN_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """Numbers in a device's memory.

    Attributes:
        owner: owner of the memory, which is reused once the last array with this owner is gone.
        address: address of the first number.
        shape: as in NumPy.
        kind: type of the numbers.
        strides: bytes from one number to the next along each axis.
        mirrored: whether a picture [.., H, W, 3] is mirrored left to right when it is copied.
        work: the work that made it, if it is a crop.
    """

    owner: object
    address: int
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    strides: tuple[int, ...]
    mirrored: bool = False
    work: PictureWork | None = None

    @property
    def nbytes(self) -> int:
        """Memory of its numbers, in bytes."""
        return math.prod(self.shape) * self.kind.itemsize

    def at(self, index: int) -> DeviceArray:
        """Return the part with this index along the first axis."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{index} of {self.shape[0]}")
        address = self.address + index * self.strides[0]
        return replace(self, address=address, shape=self.shape[1:], strides=self.strides[1:])

    def left_to_right(self) -> DeviceArray:
        """Return the same picture, or clip, to be copied mirrored."""
        return replace(self, mirrored=not self.mirrored)


def packed_strides(shape: Sequence[int], kind: np.dtype[Any]) -> tuple[int, ...]:
    """Return the strides of an array without gaps."""
    return tuple(math.prod(shape[axis + 1 :]) * kind.itemsize for axis in range(len(shape)))


class Queue(Protocol):
    """Work that one thread gives a device, done in order, besides the work of other queues."""

    def empty(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> DeviceArray:
        """Return an array without gaps, whose numbers are whatever is there.

        Raises:
            DeviceMemoryError: the device has no memory left.
        """

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Begin to copy an array without gaps to the device; it may be changed as soon as this returns."""

    def copy(self, address: int, row_bytes: int, source: DeviceArray) -> None:
        """Begin to copy rows.

        Args:
            address: where the first row goes.
            row_bytes: from the start of one row there to the next.
            source: [rows, columns] or [rows, columns, channels]; only its rows may lie apart.
        """

    def download(self, source: DeviceArray) -> NDArray[Any]:
        """Wait for what was begun, and return the numbers of an array without gaps."""

    def run(self, kernel: KernelName, jobs: NDArray[Any]) -> None:
        """Begin to run a kernel over a table of jobs, see `jobs`; each pixel of each job once."""

    def follow_default_stream(self) -> None:
        """Let later work begin after what others in this process began on the device's default queue.

        FFmpeg (libavcodec/nvdec.c) copies decoded pictures there and does not wait; otherwise queues run concurrently.
        """

    def wait(self) -> None:
        """Wait until all is done that was begun; other threads of this process run meanwhile."""


class PictureWork(Protocol):
    """What makes pictures out of others on one device, when its `finish` is called."""

    queue: Queue

    def warped(self, pixels: Sequence[DeviceArray], matrices: Sequence[NDArray[np.float64]], size: int) -> DeviceArray:
        """Note that pictures RGB uint8 [h, w, 3] are warped by matrices [2, 3]; return RGB uint8 [N, size, size, 3]."""

    def stacked(self, items: Sequence[DeviceArray]) -> DeviceArray:
        """Note that pictures RGB uint8 [h, w, 3] of one size are copied to one array; return that, [N, h, w, 3]."""


class Device(Protocol):
    """A processor with memory of its own."""

    @property
    def name(self) -> str:
        """Name of the device, as its maker calls it."""

    def prepare(self) -> None:
        """Compile the kernels now, and not when the first one runs.

        Raises:
            MachineError: something is missing for that.
        """

    def queue(self) -> Queue:
        """Return a new queue, for one thread at a time."""

    def close(self) -> None:
        """Give everything back except the arrays still in use; none of its queues may be used afterwards."""


class Pool:
    """Memory that is given back stays taken from the device and is handed out again, by size.

    Taking memory from a driver stops the whole GPU for a moment; a scan needs the same few sizes again and again.

    Args:
        take: takes so many bytes from the device and returns their address.
        free: gives back to the device what begins at this address.
    """

    def __init__(self, take: Callable[[int], int], free: Callable[[int], None]) -> None:
        self._take, self._free = take, free
        self._idle: dict[int, list[int]] = defaultdict(list)
        # Python may drop memory, which gives it back, in the midst of anything: also while this thread has the lock.
        self._lock = threading.RLock()

    def memory(self, size_bytes: int) -> Memory:
        """Return memory of at least that size; dropping it gives it back.

        Raises:
            DeviceMemoryError: the device has no memory left, even without what lies idle here.
        """
        size = max(1, -(-size_bytes // GRAIN_BYTES)) * GRAIN_BYTES
        with self._lock:
            address = self._idle[size].pop() if self._idle[size] else None
        if address is None:
            address = self._taken(size)
        return Memory(self, address, size)

    def _taken(self, size: int) -> int:
        try:
            return self._take(size)
        except DeviceMemoryError:
            self.free_idle()
            return self._take(size)

    def give_back(self, address: int, size: int) -> None:
        """Keep memory for the next request of its size."""
        with self._lock:
            self._idle[size].append(address)

    def free_idle(self) -> None:
        """Give all memory that is not in use back to the device."""
        with self._lock:
            idle, self._idle = self._idle, defaultdict(list)
        for addresses in idle.values():
            for address in addresses:
                self._free(address)


class Memory:
    """A piece of a device's memory; gives itself back to its pool when it is dropped."""

    def __init__(self, pool: Pool, address: int, size: int) -> None:
        self._pool, self.address, self.size = pool, address, size

    def __del__(self) -> None:
        self._pool.give_back(self.address, self.size)


def array_in(memory: Memory, shape: tuple[int, ...], kind: np.dtype[Any]) -> DeviceArray:
    """Return an array without gaps that lies in this memory."""
    return DeviceArray(memory, memory.address, shape, kind, packed_strides(shape, kind))
