"""Pixels in the host's memory or on a device. Whatever differs between the two is decided here and in `DeviceArray`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.cuda.device import DeviceArray, PictureWork

# RGB uint8 of a picture [H, W, 3] or a clip [T, H, W, 3]. Where it lies depends on what decoded the video.
Pixels: TypeAlias = NDArray[np.uint8] | DeviceArray


def is_on_device(pixels: Pixels) -> TypeGuard[DeviceArray]:
    """Tell whether pixels lie in the memory of a device."""
    return isinstance(pixels, DeviceArray)


def host_array(pixels: Pixels) -> NDArray[np.uint8]:
    """Return pixels that lie in the host's memory.

    Raises:
        TypeError: they lie on a device.
    """
    if isinstance(pixels, DeviceArray):
        raise TypeError("pixels in a device's memory, for code that reads those in the host's")
    return pixels


def kind_of(pixels: Pixels) -> np.dtype[Any]:
    """Return the kind of the numbers."""
    return pixels.kind if isinstance(pixels, DeviceArray) else pixels.dtype


def item(pixels: Pixels, index: int) -> Pixels:
    """Return one picture of several [N, H, W, 3], without copying it."""
    return pixels.at(index) if isinstance(pixels, DeviceArray) else pixels[index]


def mirrored(pixels: Pixels) -> Pixels:
    """Return a picture [H, W, 3] with left and right exchanged, without copying it."""
    return pixels.left_to_right() if isinstance(pixels, DeviceArray) else pixels[:, ::-1]


def stacked(pictures: Sequence[Pixels]) -> Pixels:
    """Return pictures [H, W, 3] of one size as a clip [N, H, W, 3]; all of them lie in the same memory."""
    work, there, here = _apart(pictures)
    return np.stack(here) if work is None else work.stacked(there)


def warped(pictures: Sequence[Pixels], matrices: Sequence[NDArray[np.float64]], size: int) -> Pixels:
    """Warp pictures, bilinear without an antialiasing filter and black outside, as OpenCV's `warpAffine` does.

    Args:
        pictures: RGB uint8 [h, w, 3] each, all in the same memory; one without pixels gives black.
        matrices: float64 [2, 3] each, from (x, y, 1) of the picture to the result.
        size: side of the results, in pixels.

    Returns:
        RGB uint8 [N, size, size, 3].
    """
    work, there, here = _apart(pictures)
    if work is not None:
        return work.warped(there, matrices, size)
    import cv2  # here, as backends that read pixels have no use for it

    results = np.zeros((len(here), size, size, 3), dtype=np.uint8)
    for result, picture, matrix in zip(results, here, matrices, strict=True):
        if picture.size:
            result[...] = cv2.warpAffine(picture, matrix, (size, size))
    return results


def _apart(pictures: Sequence[Pixels]) -> tuple[PictureWork | None, list[DeviceArray], list[NDArray[np.uint8]]]:
    """Return what works on pictures that lie on a device, and the pictures by the memory they lie in."""
    there = [picture for picture in pictures if isinstance(picture, DeviceArray)]
    here = [picture for picture in pictures if not isinstance(picture, DeviceArray)]
    return there[0].work if there else None, there, here
