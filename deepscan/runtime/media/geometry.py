"""Geometry: from decoded pixels to the upright picture that a viewer sees, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a decoded picture is turned upright: transpose first, then flip. Covers all eight cases."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture [H, W, ...] upright; a view where nothing moves."""
        if self.transpose:
            picture = picture.swapaxes(0, 1)
        if self.flip_x:
            picture = picture[:, ::-1]
        if self.flip_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)


@dataclass(frozen=True, slots=True)
class Geometry:
    """From decoded pixels to the picture that a viewer sees.

    `pixel_aspect` is the width of a decoded pixel in units of its height; `orientation` then turns the picture upright.
    """

    coded_width: int
    coded_height: int
    pixel_aspect: float = 1.0
    orientation: Orientation = Orientation()

    @property
    def width(self) -> int:
        """Width of the upright picture, in square pixels."""
        return self.coded_height if self.orientation.transpose else self._stretched_width

    @property
    def height(self) -> int:
        """Height of the upright picture, in square pixels."""
        return self._stretched_width if self.orientation.transpose else self.coded_height

    @property
    def _stretched_width(self) -> int:
        return max(1, round(self.coded_width * self.pixel_aspect))

    def shrunk(self, longest_side: int) -> tuple[int, int]:
        """Return width and height of the upright picture, scaled down so that its longer side fits."""
        scale = min(1.0, longest_side / max(self.width, self.height))
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))

    def coded_box(self, box: Box) -> Box:
        """Map a box (x0, y0, x1, y1) of the upright picture to decoded pixels."""
        x0, y0, x1, y1 = box
        if self.orientation.flip_x:
            x0, x1 = self.width - x1, self.width - x0
        if self.orientation.flip_y:
            y0, y1 = self.height - y1, self.height - y0
        if self.orientation.transpose:
            x0, y0, x1, y1 = y0, x0, y1, x1
        squeeze = self.coded_width / self._stretched_width
        return x0 * squeeze, y0, x1 * squeeze, y1
