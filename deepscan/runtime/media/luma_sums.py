"""What finding cuts needs of a frame on a device: a kilobyte instead of the frame."""

from __future__ import annotations

from typing import Final

import numpy as np

from deepscan.runtime.cuda.device import DeviceArray, Queue
from deepscan.runtime.cuda.kernel_jobs import BLOCKS, SUM_LUMA
from deepscan.runtime.media.shots import sample_places

SUMS: Final = np.dtype(np.uint32)


def luma_sums(queue: Queue, plane: DeviceArray) -> DeviceArray:
    """Begin to add up samples of a luma plane, uint8 or uint16 [H, W]; see `Picture.luma_sums`.

    Returns:
        uint32 [16, 16], once somebody waits.
    """
    sums = queue.empty((BLOCKS, BLOCKS), SUMS)
    job = np.zeros(1, dtype=SUM_LUMA)
    job["width"] = job["height"] = BLOCKS
    job["address"], (job["row"], job["step"]) = plane.address, plane.strides
    job["sample_bytes"], job["target"] = plane.kind.itemsize, sums.address
    height, width = plane.shape
    job["rows"], job["columns"] = sample_places((height, width))
    queue.run("sum_luma", job)
    return sums
