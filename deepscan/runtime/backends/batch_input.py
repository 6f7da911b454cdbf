"""Filling the input of a network on a GPU from items in the host's memory or on the device.

The library that runs the network may use a stream of its own, of which nothing is known here. So `fill` waits until the
input is complete; that costs little, as backends compute one batch after the other.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from deepscan.runtime.backends.batching import refuse_other_items
from deepscan.runtime.cuda.cuda_runtime import cuda_is_installed
from deepscan.runtime.cuda.device import DeviceArray, packed_strides
from deepscan.runtime.cuda.pixels import is_on_device
from deepscan.runtime.media.device_work import BYTES, DeviceWork

if TYPE_CHECKING:
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.cuda.cuda_device import CudaDevice
    from deepscan.runtime.cuda.device import Device


class BatchInput(threading.local):
    """Copies batches to an address on a device.

    A queue belongs to one thread, and detectors are loaded in another thread than they run in. So each thread that uses
    it has a queue of its own.

    Args:
        device: that the addresses belong to.
        item_shape: of an item of the batch.
    """

    def __init__(self, device: Device, item_shape: tuple[int, ...]) -> None:
        self._work = DeviceWork(device.queue())
        self._item_shape = item_shape

    def fill(self, address: int, batch: Items) -> None:
        """Put a batch into the first places of an input, and wait until it is there.

        The places behind it keep what they hold: pixels of earlier batches, or whatever was in the memory. That is
        safe: any byte is a pixel, no answer depends on its item's neighbors, and the answers there are dropped.

        Args:
            address: of the input on the device, uint8 without gaps; nothing reads it meanwhile.
            batch: N items; those on the device have no gaps and are finished. Another queue made them, and no event is
                needed: whoever made them waited for that queue (`DeviceWork.finish`) before handing them on.

        Raises:
            TypeError, ValueError: an item is of another kind or shape.
        """
        refuse_other_items(batch, self._item_shape)
        queue = self._work.queue
        if isinstance(batch, np.ndarray):
            queue.upload(address, np.ascontiguousarray(batch))
        else:
            for number, item in enumerate(batch):
                place = address + number * math.prod(self._item_shape)
                if is_on_device(item):
                    self._work.copied_into(self._one_item(place), [item])
                else:
                    queue.upload(place, np.ascontiguousarray(item))
        self._work.finish()
        queue.wait()  # where nothing lies on the device, `finish` has nothing to wait for

    def _one_item(self, place: int) -> DeviceArray:
        """Return an array [1, *item] of memory that another object keeps."""
        shape = (1, *self._item_shape)
        return DeviceArray(None, place, shape, BYTES, packed_strides(shape, BYTES))


def batch_input_on_cuda(item_shape: tuple[int, ...]) -> BatchInput | None:
    """Return a `BatchInput` for the first visible GPU; None where cuda-python is not installed.

    Without cuda-python only the backends themselves use the GPU's memory, so no item can lie there.

    Raises:
        MachineError: CUDA cannot be used.
    """
    return BatchInput(first_gpu(), item_shape) if cuda_is_installed() else None


@cache
def first_gpu() -> CudaDevice:
    """Return the first visible GPU, the same object for the whole process, so that its memory pool is shared.

    Raises:
        MachineError: CUDA cannot be used.
    """
    from deepscan.runtime.cuda.cuda_device import CudaDevice

    return CudaDevice()
