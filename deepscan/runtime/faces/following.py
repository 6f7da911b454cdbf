"""Following the faces of one video, and cropping them: where they were detected, and in between by interpolation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.faces.cropping import Cropper, CropSpec, FaceInput
from deepscan.runtime.faces.detections import Detection
from deepscan.runtime.faces.face_selection import SkipSummary, SmallFaces
from deepscan.runtime.faces.tracking import Glimpses
from deepscan.runtime.media.video_limits import CrowdLimit

if TYPE_CHECKING:
    from deepscan.runtime.faces.detections import Faces
    from deepscan.runtime.faces.tracking import Tracking
    from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob


@dataclass(frozen=True, slots=True, eq=False)
class TracksEnded:
    """These tracks of these detectors get no more crops.

    Attributes:
        glimpses: the tracks that were seen in one searched frame alone, although its neighbors show the same shot.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    tracks: list[int]
    glimpses: tuple[int, ...] = ()
    nbytes: int = 0


class Follower(Protocol):
    """Turns the frames of one video into crops or clips for some detectors, in the order of time for each track.

    Attributes:
        detectors: their numbers.
        most_faces: the largest number of faces seen in one frame so far.
    """

    detectors: tuple[int, ...]
    most_faces: int

    @property
    def over_limit(self) -> bool:
        """Whether the video is over a limit, so that further frames change nothing."""

    def follow(self, task: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """Take a frame, with its faces in pixels of the upright picture if it was searched."""

    def rewind(self) -> None:
        """Prepare for a second pass: the same frames come once more and are not searched again."""

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """End the tracks that are left."""

    def skipped(self) -> SkipSummary:
        """Return a summary of the faces that the detectors were not given."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    seconds: float
    faces: dict[int, Detection]


class FaceFollower:
    """The faces of one video, each frame seen once; see `Follower`.

    A frame that was not searched waits until the next one that is. Then its faces lie on the straight line between the
    two detections of each track that was seen in both searched frames; other tracks are not guessed at.

    Detectors with different crops have followers of their own, so that none depends on another: one may leave out
    faces that the other takes.
    """

    def __init__(
        self,
        job: VideoJob,
        spec: CropSpec,
        tracking: Tracking,
        *,
        joins_gaps: bool = False,
        marks_glimpses: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Begin a video.

        Args:
            job: the video.
            spec: the crops that its detectors need.
            tracking: tells whose faces are whose.
            joins_gaps: whether crops join to clips although there were none in the frames between them.
            marks_glimpses: whether searched frames are so close that a face seen in one alone is hardly a face.
            limits: of faces and tracks. A video that is over one, and is not truncated, gives nothing more.
        """
        self.detectors = spec.detectors
        self.most_faces = 0
        self._job = job
        self._cropper = Cropper(job, spec)
        self._tracking = tracking
        self._waiting: list[FrameTask] = []
        self._seen = _Sighting(0.0, {})
        self._small = SmallFaces(spec.min_face_pixels)
        self._glimpses = Glimpses() if marks_glimpses else None
        self._crowd = CrowdLimit(limits)
        self._joins_gaps = joins_gaps
        self._shots = 0
        self._searched_with_faces = 0

    @property
    def over_limit(self) -> bool:
        """See `Follower.over_limit`."""
        return self._crowd.over is not None

    def follow(self, task: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.follow`."""
        if not self._crowd.goes_on():
            self._waiting.clear()
            return
        if faces is None:
            self._waiting.append(task)
            return
        frame = task.frame
        self._shots += task.starts_shot  # no clip crosses a shot boundary, although a track may
        if task.starts_shot and not task.continues:
            yield from self._ended(self._tracking.end_all())
        yield from self._ended(self._tracking.end_absent(frame.pts_seconds))
        found = self._large_enough(faces)
        boxes = np.array([face.box for face in found], dtype=np.float32).reshape(-1, 4)
        numbers = self._tracking.update(frame.pts_seconds, boxes)
        pairs = zip(numbers, found, strict=True)
        taken = {n: face for n, face in pairs if n is not None and self._crowd.takes_track(n)}
        if self._crowd.over is not None:
            return
        seen = _Sighting(frame.pts_seconds, taken)
        if self._glimpses is not None:
            if task.starts_shot:
                self._glimpses.start_shot()
            self._glimpses.add(taken)
        waiting, self._waiting = self._waiting, []
        for between in waiting:
            share = self._share(between.frame.pts_seconds, seen)
            for number in sorted(self._seen.faces.keys() & seen.faces.keys()):
                face = interpolated(self._seen.faces[number], seen.faces[number], share)
                position = between.position + self._shots
                yield from self._cropper.take(between.frame, position, number, face, found=False)
        position = self._searched_with_faces if self._joins_gaps else task.position + self._shots
        for number, face in seen.faces.items():
            yield from self._cropper.take(frame, position, number, face, found=True)
        self._searched_with_faces += bool(seen.faces)
        self._seen = seen

    def rewind(self) -> None:
        """See `Follower.rewind`."""
        raise AssertionError("each frame is seen once")

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.finish`."""
        yield from self._ended(self._tracking.end_all())

    def skipped(self) -> SkipSummary:
        """See `Follower.skipped`."""
        return self._small.skipped(self._cropper.longest_dropped, self._crowd)

    def _large_enough(self, faces: Faces) -> list[Detection]:
        found = [Detection(box, landmarks) for box, landmarks in zip(faces.boxes, faces.landmarks, strict=True)]
        sides = np.array([face.longer_side for face in found])
        large = [found[place] for place in np.flatnonzero(self._small.are_not(sides, faces.scores))]
        self.most_faces = max(self.most_faces, len(found))
        return [large[kept] for kept in self._crowd.largest([face.longer_side for face in large])]

    def _share(self, seconds: float, seen: _Sighting) -> float:
        span = seen.seconds - self._seen.seconds
        return min(1.0, max(0.0, (seconds - self._seen.seconds) / span)) if span > 0 else 0.5

    def _ended(self, numbers: list[int]) -> Iterator[FaceInput | TracksEnded]:
        if numbers:
            yield from self._cropper.end(numbers)
            glimpses = self._glimpses.end(numbers) if self._glimpses is not None else ()
            yield TracksEnded(self._job, self.detectors, numbers, glimpses)


def interpolated(before: Detection, after: Detection, share: float) -> Detection:
    """Return the face at `share` (0 to 1) of the way from one detection to another."""
    part = np.float32(share)
    box = before.box + (after.box - before.box) * part
    return Detection(box, before.landmarks + (after.landmarks - before.landmarks) * part)
