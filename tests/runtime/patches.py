"""What a frame of `quadrants` shows in the middles of its four parts."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.pyav_reader import PyAVReader
from tests.runtime.host_crops import crop_rgb

PATCH = 8


def seen_in_shrink(reader: PyAVReader, frame: Frame) -> list[NDArray[Any]]:
    """Return the mean colors (RGB) in the middles of the quadrants of the picture for face search."""
    picture = reader.shrink(frame, 4096)[..., ::-1]
    assert picture.shape == (frame.geometry.height, frame.geometry.width, 3)
    boxes = _patches(frame)
    return [picture[y : y + PATCH, x : x + PATCH].reshape(-1, 3).mean(axis=0) for x, y in boxes]


def seen_in_crops(frame: Frame) -> list[NDArray[Any]]:
    """Return the mean colors of crops from the middles of the quadrants."""
    crops = [crop_rgb(frame, (x, y, x + PATCH, y + PATCH), 4) for x, y in _patches(frame)]
    return [crop.reshape(-1, 3).mean(axis=0) for crop in crops]


def _patches(frame: Frame) -> list[tuple[int, int]]:
    width, height = frame.geometry.width, frame.geometry.height
    return [(width * a // 4 - PATCH // 2, height * b // 4 - PATCH // 2) for b in (1, 3) for a in (1, 3)]
