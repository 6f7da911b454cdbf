"""Aligned crops: faces rotated, scaled and moved so that their landmarks lie where the detector expects them.

Bilinear without an antialiasing filter, as in all the authors' code with OpenCV's warps, from RGB at the video's own
size. Only the region around the face is converted to RGB. A matrix is float64 [2, 3] and maps a point (x, y, 1) of the
picture to the crop. Coordinates are those of OpenCV: the center of the first pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.cuda.pixels import Pixels, item, warped
from deepscan.runtime.faces.crops import IntBox, region_rgb
from deepscan.runtime.media.device_work import inverted
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.geometry import Box
from deepscan.spec import Landmarks

SMALLEST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class FaceRegion:
    """The part of one frame that a clip needs: an enlarged box, RGB uint8 [h, w, 3], and its position in the frame.

    Landmarks are float64 [5, 2], in pixels of the frame.
    """

    pixels: Pixels
    left: int
    top: int
    landmarks: NDArray[np.float64]


def face_region(frame: Frame, box: Box, landmarks: NDArray[np.float32], *, reach: float) -> FaceRegion:
    """Cut the enlarged box out of a frame (AltFreezing: test_tools/utils.py:13-24)."""
    region = enlarged_box(box, frame.geometry.width, frame.geometry.height, reach=reach)
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


def enlarged_box(box: Box, width: int, height: int, *, reach: float) -> IntBox:
    """Enlarge a face box on each side and clip it to the picture, in whole pixels rounded half to even.

    AltFreezing: test_tools/utils.py:13-24. The last row and column of the picture are never part of it. `reach` is in
    units of the box's own width and height.
    """
    x0, y0, x1, y1 = (float(np.rint(value)) for value in box)
    across, down = reach * (x1 - x0), reach * (y1 - y0)
    left, right = np.rint(np.clip([x0 - across, x1 + across], 0, width - 1)).astype(int).tolist()
    top, bottom = np.rint(np.clip([y0 - down, y1 + down], 0, height - 1)).astype(int).tolist()
    return left, top, right, bottom


def target_landmarks(target: Landmarks, size: int) -> NDArray[np.float64]:
    """Return the expected positions of the landmarks, float64 [5, 2], in pixels of a crop of `size`."""
    return np.array(target, dtype=np.float64) * size


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit a similarity without reflection, from points [K, 2] to their targets [K, 2], by least squares in the crop.

    CADDM: lib/data_preprocess/cropface.py; DeepfakeBench's Umeyama gives the same in two dimensions.
    If all points coincide, they are moved and not scaled.
    """
    center, aim = source.mean(axis=0), target.mean(axis=0)
    d, u = source - center, target - aim
    total = max(float((d**2).sum()), SMALLEST)
    a = (u * d).sum() / total
    b = (u[:, 0] * d[:, 1] - u[:, 1] * d[:, 0]).sum() / total
    if np.hypot(a, b) < SMALLEST:
        a, b = 1.0, 0.0
    linear = np.array([[a, b], [-b, a]])
    return np.column_stack([linear, aim - linear @ center])


def clip_similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the similarity of a clip from points [K, 2] of all frames to targets, by least squares in the picture.

    FTCN and AltFreezing: test_tools/warp_for_xray.py:404-425. A mirrored solution is tried too. Because of a bug there,
    it is chosen not where it fits better, but where a face is seen almost exactly from the side; that is reproduced.
    """
    flip = np.array([-1.0, 1.0])
    flipped = target * flip
    plain = inverted(similarity(target, source))
    mirrored = inverted(similarity(flipped, source)) * flip[:, None]
    # Both are compared with the flipped target: this is the bug.
    errors = [np.linalg.norm(moved(matrix, source) - flipped) for matrix in (plain, mirrored)]
    return plain if errors[0] <= errors[1] else mirrored


def moved(matrix: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a matrix [2, 3] to points [K, 2]."""
    result: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return result


def shifted(matrix: NDArray[np.float64], left: float, top: float) -> NDArray[np.float64]:
    """Return the matrix for the part of a picture that begins at (left, top)."""
    return np.column_stack([matrix[:, :2], matrix[:, :2] @ np.array([left, top]) + matrix[:, 2]])


def source_box(matrix: NDArray[np.float64], size: int, width: int, height: int) -> IntBox:
    """Return the pixels (x0, y0, x1, y1) of a picture that a crop of `size` reads; x1 and y1 are exclusive.

    Empty (x0 >= x1 or y0 >= y1) where the crop lies outside the picture.
    """
    corners = np.array([[0, 0], [size - 1, 0], [0, size - 1], [size - 1, size - 1]], dtype=np.float64)
    reached = moved(inverted(matrix), corners)
    low, high = np.floor(reached.min(axis=0)) - 1, np.ceil(reached.max(axis=0)) + 2
    x0, y0 = np.clip(low, 0, [width, height]).astype(int).tolist()
    x1, y1 = np.clip(high, 0, [width, height]).astype(int).tolist()
    return x0, y0, x1, y1
