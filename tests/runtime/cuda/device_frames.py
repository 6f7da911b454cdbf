"""Frames in the memory of a device, laid out as decoders leave them there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deepscan.runtime.cuda.cuda_device import CudaDevice
from deepscan.runtime.cuda.device import DeviceArray, packed_strides
from deepscan.runtime.cuda.pixels import is_on_device
from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.frames import DeviceFrame, host_picture
from deepscan.runtime.media.pyav_pictures import luma_sums
from tests.footage import quadrants, write_video
from tests.runtime.cuda.host_device import HostDevice

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from deepscan.runtime.cuda.device import Queue
    from deepscan.runtime.cuda.pixels import Pixels
    from deepscan.runtime.media.device_work import DeviceWork
    from deepscan.runtime.media.frames import Frame

DEVICES = [pytest.param(HostDevice, id="host"), pytest.param(CudaDevice, id="cuda", marks=pytest.mark.gpu)]
ROW_GAP_BYTES = 24


def on_device(queue: Queue, numbers: NDArray[Any], *, row_gap: int = 0) -> DeviceArray:
    """Return a copy of an array that is in the device's memory after the first wait.

    Args:
        queue: of the device.
        numbers: [rows, ...].
        row_gap: bytes that lie unused behind each row.
    """
    row_bytes = numbers.nbytes // len(numbers) + row_gap
    rows = np.zeros((len(numbers), row_bytes), np.uint8)
    rows[:, : row_bytes - row_gap] = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), -1)
    memory = queue.empty(rows.shape, rows.dtype)
    queue.upload(memory.address, rows)
    strides = (row_bytes, *packed_strides(numbers.shape[1:], numbers.dtype))
    return DeviceArray(memory.owner, memory.address, numbers.shape, numbers.dtype, strides)


def downloaded(queue: Queue, pixels: Pixels) -> NDArray[np.uint8]:
    """Return pixels that lie on the device, and are finished."""
    assert is_on_device(pixels)
    found: NDArray[np.uint8] = queue.download(pixels)
    return found


def frame_on_device(work: DeviceWork, frame: Frame, *, interleaved: bool = False) -> Frame:
    """Return a frame whose planes are copies on the device, for `work` to make crops of.

    Args:
        work: of the thread that uses the frame.
        frame: decoded on the CPU.
        interleaved: Cb and Cr take turns in one plane, as in NV12 and P010.
    """
    picture = host_picture(frame)
    luma, *chroma = picture.planes
    planes = [on_device(work.queue, luma, row_gap=ROW_GAP_BYTES)]
    if interleaved:
        both = on_device(work.queue, np.dstack(chroma), row_gap=ROW_GAP_BYTES)
        shape, strides, step = both.shape[:2], both.strides[:2], both.strides[2]
        planes += [replace(both, address=both.address + step * each, shape=shape, strides=strides) for each in (0, 1)]
    else:
        planes += [on_device(work.queue, plane, row_gap=ROW_GAP_BYTES) for plane in chroma]
    color, left_chroma = picture.color, picture.left_chroma
    sums = work.queue.download(luma_sums(work.queue, planes[0]))
    return replace(frame, picture=DevicePicture(tuple(planes), picture.bit_depth, color, left_chroma, work, sums))


def device_picture(frame: Frame) -> DevicePicture:
    """Return the picture of a frame that lies on a device."""
    assert isinstance(frame.picture, DevicePicture)
    return frame.picture


def device_frame(
    work: DeviceWork, frame: Frame, shape: tuple[int, int, int], *, interleaved: bool = False
) -> DeviceFrame:
    """Return a copy of a frame on the device, to be searched as a picture of this shape."""
    moved = frame_on_device(work, frame, interleaved=interleaved)
    return DeviceFrame(device_picture(moved), moved.geometry, shape)


def high_bits(plane: NDArray[Any], bit_depth: int) -> NDArray[Any]:
    """Return samples as P010 and P016 have them: in the highest bits of 16."""
    return plane if bit_depth == 8 else plane << (16 - bit_depth)


def turned_video(path: Path) -> Path:
    """Write a video that is mirrored across its diagonal, which no rotation alone does."""
    matrix = [0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30]
    return write_video(path, [quadrants(96, 48)] * 3, display_matrix=matrix)
