"""Quality of the faces that are scored: measures of their decoded luma.

A face is measured on the samples as they were decoded, before any crop is resampled: no detector, backend or batch has
a part in it. What classes the measures make: `deepscan.runtime.pipeline.quality`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.cuda.device import packed_strides
from deepscan.runtime.faces.crops import eight_bits
from deepscan.runtime.faces.detections import FaceMeasures
from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Box

# Most measured crops of a track; when there are more, every second one is dropped, and as many are passed over later.
MEASURED: Final = 8
# Sharpness is that of a face with this longer side, in pixels, whatever the size of a detector's crops.
SHARPNESS_SIDE: Final = 128
BLUR_SIDE: Final = 9
BLOCK: Final = 8
# Blocks are looked at in the middle of large faces, at most so many pixels across and down.
BLOCKINESS_SIDE: Final = 256
# Keeps ratios finite where a face is flat, in levels of 8 bits.
LEAST_DIFFERENCE: Final = 0.1


class MeasuredTrack:
    """Measures of one track: of all its crops, every second, every fourth and so on; at most `MEASURED` are kept."""

    def __init__(self) -> None:
        self._step = 1
        self._crops = 0
        self.kept: list[FaceMeasures] = []

    def see(self, frame: Frame, box: Box) -> None:
        """Count a crop, of the face in this box of the upright picture, and measure the face if it is its turn."""
        if self._crops % self._step == 0:
            self.kept.append(measures(frame, box))
            if len(self.kept) > MEASURED:
                del self.kept[1::2]
                self._step *= 2
        self._crops += 1


def means_of(tracks: Mapping[int, MeasuredTrack]) -> dict[int, FaceMeasures]:
    """Return the means of the measures of each track, by its number; tracks without a crop are left out."""
    return {
        number: FaceMeasures(*np.mean(track.kept, axis=0).tolist()) for number, track in tracks.items() if track.kept
    }


def measures(frame: Frame, box: Box) -> FaceMeasures:
    """Return the measures of the face in a box (x0, y0, x1, y1) of the upright picture, in its pixels."""
    x0, y0, x1, y1 = box
    luma, left, top = _luma(frame, box)
    return FaceMeasures(sharpness(luma), blockiness(luma, left=left, top=top), float(max(x1 - x0, y1 - y0)))


def sharpness(luma: NDArray[np.uint8]) -> float:
    """Return the share of the differences between neighbors that a blur over nine pixels takes away, in [0, 1].

    It is taken of a face [H, W] at a longer side of 128 pixels, across and down, and does not change with its contrast
    (the idea: F. Crete et al., The blur effect, SPIE 2007). A face without any difference has 0.
    """
    height, width = luma.shape
    scale = SHARPNESS_SIDE / max(height, width)
    sides = max(2, round(width * scale)), max(2, round(height * scale))
    face = cv2.resize(luma, sides, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR).astype(np.float32)
    shares = []
    for axis, kernel in ((0, (1, BLUR_SIDE)), (1, (BLUR_SIDE, 1))):
        before = np.abs(np.diff(face, axis=axis))
        after = np.abs(np.diff(cv2.blur(face, kernel), axis=axis))
        total = float(before.sum())
        shares.append(float(np.maximum(0, before - after).sum()) / total if total else 0.0)
    return sum(shares) / len(shares)


def blockiness(luma: NDArray[np.uint8], *, left: int, top: int) -> float:
    """Return the mean difference across borders of blocks in units of that elsewhere; the mean of both directions.

    Args:
        luma: face as decoded, [H, W].
        left: column of its first sample in the decoded picture, whose blocks begin at multiples of eight.
        top: row of that sample.
    """
    height, width = luma.shape
    across, down = max(0, width - BLOCKINESS_SIDE) // 2, max(0, height - BLOCKINESS_SIDE) // 2
    face = luma[down : down + BLOCKINESS_SIDE, across : across + BLOCKINESS_SIDE]
    ratios = []
    for lines, start in ((face, top + down), (face.T, left + across)):
        if len(lines) < 2:
            continue
        steps = cv2.reduce(cv2.absdiff(lines[1:], lines[:-1]), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S) / lines.shape[1]
        borders = (np.arange(1, len(steps) + 1) + start) % BLOCK == 0
        if borders.any() and not borders.all():
            inside = float(steps[~borders].mean()) + LEAST_DIFFERENCE
            ratios.append((float(steps[borders].mean()) + LEAST_DIFFERENCE) / inside)
    return sum(ratios) / len(ratios) if ratios else 1.0


def _luma(frame: Frame, box: Box) -> tuple[NDArray[np.uint8], int, int]:
    """Return what a box of the upright picture shows, as decoded samples of 8 bits [H, W], and where it begins."""
    picture = frame.picture
    height, width = picture.planes[0].shape
    x0, y0, x1, y1 = frame.geometry.coded_box(box)
    left, right = _inside(x0, x1, width)
    top, bottom = _inside(y0, y1, height)
    return eight_bits(_window(picture, left, top, right, bottom), picture.bit_depth), left, top


def _inside(start: float, end: float, side: int) -> tuple[int, int]:
    """Return the whole samples of a stretch that lie in a picture with this side, at least one."""
    first = min(max(0, math.floor(start)), side - 1)
    return first, max(first + 1, min(side, math.ceil(end)))


def _window(picture: Picture | DevicePicture, left: int, top: int, right: int, bottom: int) -> NDArray[Any]:
    """Return a part of the luma plane, in the host's memory."""
    if not isinstance(picture, DevicePicture):
        return picture.planes[0][top:bottom, left:right]
    plane, queue = picture.planes[0], picture.work.queue
    shape, (row, step) = (bottom - top, right - left), plane.strides
    there = replace(plane, address=plane.address + top * row + left * step, shape=shape)
    packed = queue.empty(shape, plane.kind)
    queue.copy(packed.address, packed_strides(shape, plane.kind)[0], there)
    return queue.download(packed)
