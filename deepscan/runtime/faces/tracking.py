"""Tracking: matches faces from one searched frame to the next, until a shot boundary or their absence ends a track."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.faces.detections import iou

# A face keeps its identity when its boxes overlap by at least this much (IoU of the widened boxes).
MIN_OVERLAP = 0.3
# Boxes are widened on each side by this share of their size per second since the last sighting: people move.
WIDENING_PER_SECOND = 0.3
MAX_WIDENING = 0.5


class Tracking(Protocol):
    """Tells which face of a frame is whose."""

    def update(self, seconds: float, boxes: NDArray[np.float32]) -> Sequence[int | None]:
        """Return the track number of each box [K, 4] (x0, y0, x1, y1) seen at `seconds`; None leaves it out."""

    def end_absent(self, seconds: float) -> list[int]:
        """Forget the tracks that have not been seen for too long; return their numbers."""

    def end_all(self) -> list[int]:
        """Forget every track; return their numbers."""


class LargestFace:
    """The only track is the largest face of each frame by area, whichever person it shows."""

    def update(self, seconds: float, boxes: NDArray[np.float32]) -> Sequence[int | None]:  # noqa: ARG002
        """See `Tracking.update`."""
        numbers: list[int | None] = [None] * len(boxes)
        if len(boxes):
            numbers[int((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).argmax())] = 0
        return numbers

    def end_absent(self, seconds: float) -> list[int]:  # noqa: ARG002
        """See `Tracking.end_absent`."""
        return []

    def end_all(self) -> list[int]:
        """See `Tracking.end_all`."""
        return [0]


@dataclass(slots=True)
class _Track:
    number: int
    box: NDArray[np.float32]
    seconds: float
    missed: bool = False


class Tracker:
    """Gives the faces of successive frames their track numbers.

    A face that has not been seen for longer than `max_gap_seconds` is gone; the same person is a new track afterwards.
    """

    def __init__(self, *, max_gap_seconds: float) -> None:
        self._max_gap = max_gap_seconds
        self._tracks: list[_Track] = []
        self._next_number = 0

    def update(self, seconds: float, boxes: NDArray[np.float32]) -> list[int]:
        """Match the boxes [K, 4] (x0, y0, x1, y1) seen at `seconds`; return K track numbers, new ones included."""
        numbers = [-1] * len(boxes)
        matches = self._matches(seconds, boxes)
        for track in self._tracks:
            track.missed = True
        for track, face in matches:
            track.box, track.seconds, track.missed = boxes[face], seconds, False
            numbers[face] = track.number
        for face, number in enumerate(numbers):
            if number < 0:
                numbers[face] = self._next_number
                self._tracks.append(_Track(self._next_number, boxes[face], seconds))
                self._next_number += 1
        return numbers

    def end_absent(self, seconds: float) -> list[int]:
        """Forget the tracks that were missed and not seen for too long; return their numbers."""
        ended = [track.number for track in self._tracks if track.missed and seconds - track.seconds > self._max_gap]
        self._tracks = [track for track in self._tracks if track.number not in ended]
        return ended

    def end_all(self) -> list[int]:
        """Forget every track, as at a shot boundary; return their numbers."""
        ended = [track.number for track in self._tracks]
        self._tracks = []
        return ended

    def _matches(self, seconds: float, boxes: NDArray[np.float32]) -> list[tuple[_Track, int]]:
        """Pair tracks and faces, best overlap first."""
        if not self._tracks or not len(boxes):
            return []
        widening = np.array(
            [min(MAX_WIDENING, WIDENING_PER_SECOND * max(0.0, seconds - track.seconds)) for track in self._tracks],
            dtype=np.float32,
        )
        overlaps = widened_iou(np.stack([track.box for track in self._tracks]), boxes, widening)
        pairs: list[tuple[_Track, int]] = []
        for _ in range(min(overlaps.shape)):
            row, column = divmod(int(overlaps.argmax()), overlaps.shape[1])
            if overlaps[row, column] < MIN_OVERLAP:
                break
            pairs.append((self._tracks[row], column))
            overlaps[row, :] = overlaps[:, column] = -1.0
        return pairs


def widened_iou(
    tracks: NDArray[np.float32], faces: NDArray[np.float32], widening: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the IoU [M, K] of M and K boxes (x0, y0, x1, y1), each widened by `widening` [M] of its size."""
    grow = np.array([-1.0, -1.0, 1.0, 1.0], dtype=np.float32) * widening[:, None, None]
    a = tracks[:, None] + grow * np.tile(tracks[:, 2:] - tracks[:, :2], 2)[:, None]
    b = faces[None] + grow * np.tile(faces[:, 2:] - faces[:, :2], 2)[None]
    return iou(a, b)


class Glimpses:
    """Finds glimpses: tracks that one searched frame saw, and its neighbors in the shot did not.

    In a shot with a single searched frame nothing is a glimpse: there was no other chance to see the face.
    """

    def __init__(self) -> None:
        self._sightings: dict[int, int] = {}
        self._missed: set[int] = set()
        self._once_in_shot: set[int] = set()
        self._searched_in_shot = 0

    def start_shot(self) -> None:
        """Begin another shot: what it does not show says nothing about the shot before."""
        self._once_in_shot.clear()
        self._searched_in_shot = 0

    def add(self, seen: Collection[int]) -> None:
        """Take the tracks that a searched frame saw."""
        missed = self._once_in_shot.difference(seen)
        self._missed |= missed
        self._once_in_shot -= missed
        for number in seen:
            self._sightings[number] = self._sightings.get(number, 0) + 1
            if self._sightings[number] > 1:
                self._once_in_shot.discard(number)
                self._missed.discard(number)
            elif self._searched_in_shot:  # the searched frame before did not see it
                self._missed.add(number)
            else:
                self._once_in_shot.add(number)
        self._searched_in_shot += 1

    def end(self, numbers: Collection[int]) -> tuple[int, ...]:
        """Forget tracks that have ended; return which of them were glimpses."""
        found = tuple(number for number in numbers if number in self._missed)
        for number in numbers:
            self._sightings.pop(number, None)
        self._missed.difference_update(numbers)
        self._once_in_shot.difference_update(numbers)
        return found
