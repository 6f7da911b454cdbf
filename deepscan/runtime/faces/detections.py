"""Detections: the faces that a face detector finds, and the arithmetic of their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.media.frames import DeviceFrame
from deepscan.runtime.media.geometry import Box

# Faces with less confidence are dropped, unless another threshold is asked for.
SCORE_THRESHOLD: Final = 0.8
Number = TypeVar("Number", np.float32, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of one picture, best first.

    Attributes:
        boxes: float32 [K, 4], corners (x0, y0, x1, y1) in pixels.
        landmarks: float32 [K, 5, 2]: right eye, left eye, nose, right and left mouth corner *of the person*.
        scores: float32 [K], the detector's confidence in [0, 1].
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse to exist with mismatched lengths."""
        if not len(self.boxes) == len(self.landmarks) == len(self.scores):
            raise ValueError(f"{len(self.boxes)} boxes, {len(self.landmarks)} landmarks, {len(self.scores)} scores")

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Faces:
        """Return the faces for which `chosen` [K] is true, or those at its places."""
        return Faces(self.boxes[chosen], self.landmarks[chosen], self.scores[chosen])

    def scaled(self, across: float, down: float) -> Faces:
        """Return the same faces in a picture that is `across` times wider and `down` times higher."""
        factors = np.array([across, down], dtype=np.float32)
        return Faces(self.boxes * np.tile(factors, 2), self.landmarks * factors, self.scores)


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face in pixels of the upright frame: corners (x0, y0, x1, y1) float32 [4], landmarks as of `Faces` [5, 2]."""

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def corners(self) -> Box:
        """Return the box as Python's numbers."""
        x0, y0, x1, y1 = (float(value) for value in self.box)
        return x0, y0, x1, y1


class FaceDetector(Protocol):
    """Finds faces in pictures."""

    def detect(self, pictures: NDArray[np.uint8]) -> list[Faces]:
        """Find the faces of BGR pictures uint8 [N, h, w, 3], best first, in their pixels."""


@runtime_checkable
class DeviceFaceDetector(Protocol):
    """Finds faces in frames whose planes lie on a device."""

    def detect_frames(self, frames: Sequence[DeviceFrame]) -> list[Faces]:
        """Find the faces of frames that all shrink to one shape, best first, in pixels of that shape."""


def iou(boxes: NDArray[Number], others: NDArray[Number], *, extra: int = 0) -> NDArray[Number]:
    """Return the intersection over union [...] of boxes (x0, y0, x1, y1) [..., 4], 0 for two boxes without an area.

    `extra` is added to each side of each box; 1 where corners are pixels that both belong to the box.
    """
    shared = (np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2]) + extra).clip(
        min=0
    )
    intersection = shared.prod(axis=-1)
    areas = [(each[..., 2:] - each[..., :2] + extra).prod(axis=-1) for each in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    ratio: NDArray[Number] = intersection / np.maximum(union, np.finfo(union.dtype).tiny)
    return ratio


class FaceMeasures(NamedTuple):
    """Measures of one face, or means over several; see `deepscan.results.Quality`."""

    sharpness: float
    blockiness: float
    face_pixels: float
