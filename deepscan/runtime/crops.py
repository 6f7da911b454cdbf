"""Face crops: resampled on the planes, then turned into RGB. Only the crop is ever converted, never the frame.

Definition (any other implementation is measured against this one): each plane is resampled over the crop's square
with a triangle filter, as wide as the shrinking factor where the crop shrinks and one sample where it grows
(Pillow's BILINEAR); outside the picture its border is repeated; then the matrix of `Colour` gives RGB.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.frames import Box, Frame, Picture
    from deepscan.spec import CropPolicy

NEUTRAL_CHROMA = 128
# MPEG-2 and later place a chroma sample on the left luma sample of its pair: a quarter of a chroma sample off centre.
LEFT_CHROMA_SHIFT = 0.25


def crop_square(box: Box, policy: CropPolicy) -> Box:
    """Return the square (x0, y0, x1, y1) that `policy` cuts around a face box, in the same coordinates."""
    x0, y0, x1, y1 = box
    side = policy.scale * max(x1 - x0, y1 - y0)
    centre_x = (x0 + x1) / 2
    centre_y = (y0 + y1) / 2 + policy.shift_down * side
    return centre_x - side / 2, centre_y - side / 2, centre_x + side / 2, centre_y + side / 2


def crop_rgb(frame: Frame, square: Box, size: int) -> NDArray[np.uint8]:
    """Cut a square out of the upright picture and resample it.

    Args:
        frame: the decoded frame.
        square: (x0, y0, x1, y1) in pixels of the upright picture; may reach beyond it.
        size: side of the result, in pixels.

    Returns:
        RGB uint8 [size, size, 3].
    """
    picture, geometry = frame.picture, frame.geometry
    box = geometry.coded_box(square)
    luma = picture.planes[0]
    sampled = [_resample(luma, box, size, picture.bit_depth)]
    for plane in picture.planes[1:]:
        chroma_box = _chroma_box(box, picture, plane)
        sampled.append(_resample(plane, chroma_box, size, picture.bit_depth))
    while len(sampled) < 3:
        sampled.append(np.full((size, size), NEUTRAL_CHROMA, dtype=np.uint8))
    rgb = cv2.transform(np.dstack(sampled), picture.colour.rgb_matrix())
    return geometry.orientation.apply(rgb)  # type: ignore[arg-type]


def _chroma_box(box: Box, picture: Picture, plane: NDArray[Any]) -> Box:
    """Scale a luma box to a chroma plane; odd sizes round the plane up, so the factor is a power of two."""
    luma_height, luma_width = picture.planes[0].shape
    across = _subsampling(luma_width, plane.shape[1])
    down = _subsampling(luma_height, plane.shape[0])
    shift = LEFT_CHROMA_SHIFT if across > 1 and picture.left_chroma else 0.0
    x0, y0, x1, y1 = box
    return x0 / across + shift, y0 / down, x1 / across + shift, y1 / down


def _subsampling(luma: int, chroma: int) -> int:
    return 1 if luma == chroma else int(2 ** round(math.log2(luma / chroma)))


def _resample(plane: NDArray[Any], box: Box, size: int, bit_depth: int) -> NDArray[np.uint8]:
    """Resample a box of one plane to uint8 [size, size]."""
    x0, y0, x1, y1 = box
    reach = math.ceil(max(1.0, (x1 - x0) / size, (y1 - y0) / size)) + 1
    left, top = math.floor(x0) - reach, math.floor(y0) - reach
    right, bottom = math.ceil(x1) + reach, math.ceil(y1) + reach
    window = _window(plane, left, top, right, bottom)
    if bit_depth > 8:
        shift = bit_depth - 8
        window = np.minimum((window.astype(np.uint32) + (1 << (shift - 1))) >> shift, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(window))
    inside = (x0 - left, y0 - top, x1 - left, y1 - top)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=inside))


def _window(plane: NDArray[Any], left: int, top: int, right: int, bottom: int) -> NDArray[Any]:
    """Return plane[top:bottom, left:right] with the border repeated where that lies outside."""
    height, width = plane.shape
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return plane[top:bottom, left:right]
    rows = np.arange(top, bottom).clip(0, height - 1)
    columns = np.arange(left, right).clip(0, width - 1)
    window: NDArray[Any] = plane[rows][:, columns]
    return window
