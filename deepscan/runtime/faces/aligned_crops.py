"""Aligned crops: faces rotated, scaled and moved so that their landmarks lie where the detector expects them.

Bilinear without an antialiasing filter, as in all the authors' code with OpenCV's warps, from RGB at the video's own
size. Only the region around the face is converted to RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepscan.runtime.cuda.pixels import item, warped
from deepscan.runtime.faces.alignment import (
    IntBox,
    clip_similarity,
    enlarged_box,
    shifted,
    similarity,
    source_box,
    target_landmarks,
)
from deepscan.runtime.faces.crops import region_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.cuda.pixels import Pixels
    from deepscan.runtime.media.frames import Box, Frame
    from deepscan.spec import Landmarks


@dataclass(frozen=True, slots=True, eq=False)
class FaceRegion:
    """The part of one frame that a clip needs.

    Attributes:
        pixels: the enlarged box, RGB uint8 [h, w, 3].
        left, top: its position in the frame, in pixels.
        landmarks: float64 [5, 2], in pixels of the frame.
    """

    pixels: Pixels
    left: int
    top: int
    landmarks: NDArray[np.float64]


def face_region(frame: Frame, box: Box, landmarks: NDArray[np.float32], *, reach: float) -> FaceRegion:
    """Cut the enlarged box out of a frame (AltFreezing: test_tools/utils.py:13-24)."""
    region: IntBox = enlarged_box(box, frame.geometry.width, frame.geometry.height, reach=reach)
    return FaceRegion(region_rgb(frame, region), region[0], region[1], landmarks.astype(np.float64))


def aligned_clip(regions: Sequence[FaceRegion], target: Landmarks, size: int) -> Pixels:
    """Align the frames of a clip by one similarity, fitted to the landmarks of all of them.

    AltFreezing: test_tools/faster_crop_align_xray.py. Each frame is black outside its own region, even where the video
    shows more.

    Returns:
        RGB uint8 [T, size, size, 3].
    """
    left, top = min(region.left for region in regions), min(region.top for region in regions)
    landmarks = np.concatenate([region.landmarks for region in regions]) - [left, top]
    matrix = clip_similarity(landmarks, np.tile(target_landmarks(target, size), (len(regions), 1)))
    matrices = [shifted(matrix, region.left - left, region.top - top) for region in regions]
    return warped([region.pixels for region in regions], matrices, size)


def similarity_crop(frame: Frame, landmarks: NDArray[np.float32], target: Landmarks, size: int) -> Pixels:
    """Align one frame by the similarity fitted to its own landmarks; black outside the frame.

    CADDM: lib/data_preprocess/cropface.py; DeepfakeBench: preprocessing/preprocess.py.

    Returns:
        RGB uint8 [size, size, 3].
    """
    matrix = similarity(landmarks.astype(np.float64), target_landmarks(target, size))
    region = source_box(matrix, size, frame.geometry.width, frame.geometry.height)
    moved = shifted(matrix, region[0], region[1])
    return item(warped([region_rgb(frame, region)], [moved], size), 0)
