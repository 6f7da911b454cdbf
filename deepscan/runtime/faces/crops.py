"""Face crops: resampled on the planes, then converted to RGB. Only the crop is converted, never the frame.

This is the reference for every other implementation. Each plane is resampled over the crop's square with a triangle
filter, as wide as the scale factor where the crop shrinks and one sample where it grows (Pillow's BILINEAR). Outside
the picture its border is repeated. Then the matrix of `Color` gives RGB, which is tone-mapped if it is HDR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepscan.runtime.cuda.pixels import Pixels
from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Box, Geometry
from deepscan.spec import SquareCrop

IntBox: TypeAlias = tuple[int, int, int, int]
NEUTRAL_CHROMA = 128
# MPEG-2 and later place a chroma sample on the left luma sample of its pair, a quarter of a chroma sample off center.
LEFT_CHROMA_SHIFT = 0.25


def crop_square(box: Box, policy: SquareCrop) -> Box:
    """Return the square (x0, y0, x1, y1) that `policy` cuts around a face box, in the same coordinates."""
    x0, y0, x1, y1 = box
    side = policy.scale * max(x1 - x0, y1 - y0)
    center_x = (x0 + x1) / 2
    center_y = (y0 + y1) / 2 + policy.shift_down * side
    return center_x - side / 2, center_y - side / 2, center_x + side / 2, center_y + side / 2


def crop_rgb(frame: Frame, box: Box, size: int) -> Pixels:
    """Cut a box (x0, y0, x1, y1) out of the upright picture, in its pixels, and resample it; it may reach beyond it.

    A box that is not square is stretched.

    Returns:
        RGB uint8 [size, size, 3].
    """
    return _sampled_rgb(frame, box, size, size)


def region_rgb(frame: Frame, box: IntBox) -> Pixels:
    """Return whole pixels (x0, y0, x1, y1) of the upright picture, x1 and y1 exclusive: RGB uint8 [y1-y0, x1-x0, 3]."""
    x0, y0, x1, y1 = box
    return _sampled_rgb(frame, box, max(0, x1 - x0), max(0, y1 - y0))


def plane_boxes(picture: Picture | DevicePicture, geometry: Geometry, upright_box: Box) -> list[Box]:
    """Return a box of the upright picture in samples of each plane."""
    box = geometry.coded_box(upright_box)
    luma, *chroma = (plane.shape for plane in picture.planes)
    return [box, *(_chroma_box(box, shape, luma, left=picture.left_chroma) for shape in chroma)]


def _sampled_rgb(frame: Frame, upright_box: Box, width: int, height: int) -> Pixels:
    """Resample a box of the upright picture to RGB [height, width, 3]."""
    picture, geometry = frame.picture, frame.geometry
    boxes = plane_boxes(picture, geometry, upright_box)
    if isinstance(picture, DevicePicture):
        return picture.work.resampled(picture, boxes, geometry.orientation, width, height)
    if not width or not height:
        return np.zeros((height, width, 3), np.uint8)
    sides = (height, width) if geometry.orientation.transpose else (width, height)
    sampled = [
        _resample(plane, box, sides, picture.bit_depth) for plane, box in zip(picture.planes, boxes, strict=True)
    ]
    while len(sampled) < 3:
        sampled.append(np.full(sides[::-1], NEUTRAL_CHROMA, dtype=np.uint8))
    rgb = cv2.transform(np.dstack(sampled), picture.color.rgb_matrix())
    if picture.color.hdr is not None:
        rgb = picture.color.hdr.tone_mapped(rgb)  # type: ignore[arg-type]
    return geometry.orientation.apply(rgb)  # type: ignore[arg-type]


def _chroma_box(box: Box, chroma: Sequence[int], luma: Sequence[int], *, left: bool) -> Box:
    """Scale a luma box to a chroma plane; odd sizes round the plane up, so the factor is a power of two."""
    sizes = zip(luma, chroma, strict=True)
    down, across = (1 if whole == part else 2 ** round(math.log2(whole / part)) for whole, part in sizes)
    shift = LEFT_CHROMA_SHIFT if across > 1 and left else 0.0
    x0, y0, x1, y1 = box
    return x0 / across + shift, y0 / down, x1 / across + shift, y1 / down


def _resample(plane: NDArray[Any], box: Box, sides: tuple[int, int], bit_depth: int) -> NDArray[np.uint8]:
    """Resample a box of one plane to uint8 [height, width]; `sides` are (width, height)."""
    x0, y0, x1, y1 = box
    if sides == (x1 - x0, y1 - y0) and x0 == int(x0) and y0 == int(y0):
        return eight_bits(_window(plane, int(x0), int(y0), int(x1), int(y1)), bit_depth)
    reach = math.ceil(max(1.0, (x1 - x0) / sides[0], (y1 - y0) / sides[1])) + 1
    left, top = math.floor(x0) - reach, math.floor(y0) - reach
    right, bottom = math.ceil(x1) + reach, math.ceil(y1) + reach
    window = eight_bits(_window(plane, left, top, right, bottom), bit_depth)
    image = Image.fromarray(np.ascontiguousarray(window))
    inside = (x0 - left, y0 - top, x1 - left, y1 - top)
    return np.asarray(image.resize(sides, Image.Resampling.BILINEAR, box=inside))


def eight_bits(samples: NDArray[Any], bit_depth: int) -> NDArray[np.uint8]:
    """Return samples of so many bits, rounded to 8."""
    if bit_depth == 8:
        return samples
    shift = bit_depth - 8
    rounded = (samples.astype(np.uint32) + (1 << (shift - 1))) >> shift
    eight: NDArray[np.uint8] = np.minimum(rounded, 255).astype(np.uint8)
    return eight


def _window(plane: NDArray[Any], left: int, top: int, right: int, bottom: int) -> NDArray[Any]:
    """Return plane[top:bottom, left:right] with the border repeated where that lies outside."""
    height, width = plane.shape
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return plane[top:bottom, left:right]
    rows = plane.take(np.arange(top, bottom), axis=0, mode="clip")
    return rows.take(np.arange(left, right), axis=1, mode="clip")
