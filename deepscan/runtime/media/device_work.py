"""Crops on a device: requests are collected, and done by a few kernels at the end of a batch.

A kernel for each crop would take longer to launch than to run. So `resampled`, `warped` and `stacked` return arrays
without content; `finish` fills all of them, whatever faces, tracks and videos they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.cuda.device import DeviceArray, KernelName, Queue
from deepscan.runtime.cuda.kernel_jobs import COPY, RESAMPLE, WARP
from deepscan.runtime.media.geometry import Box, Orientation

if TYPE_CHECKING:  # it loads OpenCV, which the supervisor's process does not need
    from deepscan.runtime.media.color import Color

BYTES: Final = np.dtype(np.uint8)
CHANNELS: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class DevicePicture:
    """A `frames.Picture`, never HDR, whose planes lie in a device's memory; `work` makes crops of it.

    `luma_sums` are sums of the samples that `luma_signature` uses, uint32 [16, 16].
    """

    planes: tuple[DeviceArray, ...]
    bit_depth: int
    color: Color
    left_chroma: bool
    work: DeviceWork
    luma_sums: NDArray[np.uint32]

    @property
    def nbytes(self) -> int:
        """Device memory of the planes, in bytes."""
        return sum(plane.nbytes for plane in self.planes)


class DeviceWork:
    """The crops that a device makes for the one thread whose queue this is."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        # By kernel, in this order: regions are resampled, then warped to crops, then gathered.
        self._jobs: dict[KernelName, list[NDArray[Any]]] = {"resample": [], "warp": [], "copy_items": []}
        self._held: list[object] = []

    def nothing_yet(self, shape: tuple[int, ...]) -> DeviceArray:
        """Return an array for pixels, uint8, without content."""
        return replace(self.queue.empty(shape, BYTES), work=self)

    def resampled(
        self, picture: DevicePicture, boxes: Sequence[Box], orientation: Orientation, width: int, height: int
    ) -> DeviceArray:
        """Request a box of a picture, of each plane in its samples, to be resampled and turned upright.

        Returns:
            RGB uint8 [height, width, 3], once `finish` was called.
        """
        target = self.nothing_yet((height, width, CHANNELS))
        if not target.nbytes:
            return target
        job = resample_job(picture, boxes, orientation, width, height)
        job["matrix"] = picture.color.rgb_matrix()
        job["target"], job["target_row"] = target.address, target.strides[0]
        job["target_pixel"], job["target_channel"] = CHANNELS, 1
        self._jobs["resample"].append(job)
        self._held += [picture, target]
        return target

    def shrunk_into(
        self, target: DeviceArray, pictures: Sequence[tuple[DevicePicture, Sequence[Box], Orientation]]
    ) -> None:
        """Request whole pictures to be scaled to the input of a face detector, float32 [N, 3, height, width] up to 255.

        Channels are B, G and R; rows and planes of the target may lie apart. With each picture comes the box of each
        plane that is all of it, and how it is turned upright.
        """
        _, _, height, width = target.shape
        for number, (picture, boxes, orientation) in enumerate(pictures):
            job = resample_job(picture, boxes, orientation, width, height)
            job["matrix"] = picture.color.rgb_matrix()[::-1]
            job["target"], job["target_row"] = target.at(number).address, target.strides[2]
            job["target_pixel"], job["target_channel"] = target.strides[3], target.strides[1]
            job["target_float"] = 1
            self._jobs["resample"].append(job)
            self._held += [picture, target]

    def warped(self, pixels: Sequence[DeviceArray], matrices: Sequence[NDArray[np.float64]], size: int) -> DeviceArray:
        """Request pictures RGB uint8 [h, w, 3] to be warped; one without pixels gives black.

        The matrices are float64 [2, 3] and lead from (x, y, 1) of a picture to the result.

        Returns:
            RGB uint8 [N, size, size, 3], once `finish` was called.
        """
        target = self.nothing_yet((len(pixels), size, size, CHANNELS))
        for number, (picture, matrix) in enumerate(zip(pixels, matrices, strict=True)):
            job = np.zeros(1, dtype=WARP)
            job["width"] = job["height"] = size
            job["source"], job["source_row"] = picture.address, picture.strides[0]
            job["source_height"], job["source_width"] = picture.shape[:2]
            job["matrix"] = inverted(matrix)
            job["target"], job["target_row"] = target.at(number).address, target.strides[1]
            self._jobs["warp"].append(job)
        self._held += [*pixels, target]
        return target

    def stacked(self, items: Sequence[DeviceArray]) -> DeviceArray:
        """Request pictures RGB uint8 [h, w, 3] of one size to be copied to one array; return that, [N, h, w, 3]."""
        target = self.nothing_yet((len(items), *items[0].shape))
        self.copied_into(target, items)
        return target

    def copied_into(self, target: DeviceArray, items: Sequence[DeviceArray]) -> None:
        """Request pictures or clips to be copied to the first places of an array, mirrored if marked so."""
        for number, item in enumerate(items):
            job = np.zeros(1, dtype=COPY)
            job["height"], job["width"] = math.prod(item.shape[:-2]), item.shape[-2]
            job["source"], job["target"] = item.address, target.at(number).address
            job["mirrored"] = item.mirrored
            self._jobs["copy_items"].append(job)
        self._held += [*items, target]

    def finish(self) -> None:
        """Do all that was requested, and wait for it; its sources may then be released."""
        self.begin()
        if self._held:
            self.queue.wait()
        self._held.clear()

    def begin(self) -> None:
        """Begin all that was requested; later work of the queue comes after it."""
        for kernel, jobs in self._jobs.items():
            if jobs:
                self.queue.run(kernel, np.concatenate(jobs))
                jobs.clear()


def resample_job(
    picture: DevicePicture, boxes: Sequence[Box], orientation: Orientation, width: int, height: int
) -> NDArray[Any]:
    """Return a line of `RESAMPLE` [1] without matrix and target."""
    job = np.zeros(1, dtype=RESAMPLE)
    job["width"], job["height"] = width, height
    columns, rows = (height, width) if orientation.transpose else (width, height)
    for number, (plane, box) in enumerate(zip(picture.planes, boxes, strict=True)):
        place = job["plane"][:, number]
        place["address"], place["row"], place["step"] = plane.address, plane.strides[0], plane.strides[1]
        place["height"], place["width"] = plane.shape
        x0, y0, x1, y1 = box
        place["start"], place["scale"] = (x0, y0), ((x1 - x0) / columns, (y1 - y0) / rows)
    job["planes"], job["depth"] = len(picture.planes), picture.bit_depth
    job["sample_bytes"] = 1 if picture.bit_depth == 8 else 2
    job["transpose"], job["flip_x"], job["flip_y"] = orientation.transpose, orientation.flip_x, orientation.flip_y
    return job


def inverted(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse matrix [2, 3]; for a singular one, a matrix that leads outside every picture."""
    linear = matrix[:, :2]
    if abs(np.linalg.det(linear)) < np.finfo(np.float64).tiny:
        return np.array([[0.0, 0.0, -2.0], [0.0, 0.0, -2.0]])
    back = np.linalg.inv(linear)
    return np.column_stack([back, -back @ matrix[:, 2]])
