"""Follows the faces of one video and cuts their crops: at each look, and between two looks by interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepscan.runtime.crops import crop_rgb, crop_square
from deepscan.runtime.messages import FaceCrop, Look, TracksEnded, VideoJob
from deepscan.runtime.tracking import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.frames import Frame
    from deepscan.runtime.yunet import Faces
    from deepscan.spec import CropPolicy


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    seconds: float
    boxes: dict[int, NDArray[np.float32]]


class FaceFollower:
    """The faces of one video.

    A frame without detections waits until the next look. Then its boxes lie on the straight line between the two
    sightings, for the tracks that were seen in both looks; other tracks are not guessed at.
    """

    def __init__(self, job: VideoJob, *, policy: CropPolicy, size: int, max_gap_seconds: float) -> None:
        self._job = job
        self._policy = policy
        self._size = size
        self._tracker = Tracker(max_gap_seconds=max_gap_seconds)
        self._waiting: list[Frame] = []
        self._seen = _Sighting(0.0, {})
        self.most_faces = 0
        self.small_faces = 0

    def wait(self, frame: Frame) -> None:
        """Keep a frame that is not searched for faces until the next look."""
        self._waiting.append(frame)

    def look(self, look: Look, faces: Faces) -> Iterator[FaceCrop | TracksEnded]:
        """Take the faces of a frame, in pixels of the upright picture; yield crops in the order of time."""
        frame = look.frame
        if look.starts_shot:
            yield from self._ended(self._tracker.end_all())
        yield from self._ended(self._tracker.end_absent(frame.seconds))
        boxes = self._large_enough(faces)
        numbers = self._tracker.update(frame.seconds, boxes)
        seen = _Sighting(frame.seconds, dict(zip(numbers, boxes, strict=True)))
        waiting, self._waiting = self._waiting, []
        for between in waiting:
            for number in sorted(self._seen.boxes.keys() & seen.boxes.keys()):
                box = interpolated(self._seen.boxes[number], seen.boxes[number], self._share(between, seen))
                yield self._crop(between, number, box)
        for number, box in seen.boxes.items():
            yield self._crop(frame, number, box)
        self._seen = seen

    def finish(self) -> Iterator[TracksEnded]:
        """End the tracks that are left."""
        yield from self._ended(self._tracker.end_all())

    def _large_enough(self, faces: Faces) -> NDArray[np.float32]:
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0.0)
        large = sides >= self._policy.min_face_pixels
        self.most_faces = max(self.most_faces, len(faces))
        self.small_faces += int((~large).sum())
        boxes: NDArray[np.float32] = faces.boxes[large]
        return boxes

    def _share(self, between: Frame, seen: _Sighting) -> float:
        span = seen.seconds - self._seen.seconds
        return min(1.0, max(0.0, (between.seconds - self._seen.seconds) / span)) if span > 0 else 0.5

    def _crop(self, frame: Frame, number: int, box: NDArray[np.float32]) -> FaceCrop:
        x0, y0, x1, y1 = (float(value) for value in box)
        pixels = crop_rgb(frame, crop_square((x0, y0, x1, y1), self._policy), self._size)
        return FaceCrop(self._job, number, frame.seconds, pixels)

    def _ended(self, numbers: list[int]) -> Iterator[TracksEnded]:
        if numbers:
            yield TracksEnded(self._job, numbers)


def interpolated(before: NDArray[np.float32], after: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return the box at `share` (0..1) of the way from one box to another."""
    return before + (after - before) * np.float32(share)
