"""Following the faces of one video, and cropping them: where they were detected, and in between by interpolation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.faces.cropping import Cropper, CropSpec, FaceInput
from deepscan.runtime.faces.detections import Detection, FaceMeasures, Faces
from deepscan.runtime.faces.face_selection import FaceSelection, SkipSummary
from deepscan.runtime.faces.tracking import Glimpses, Tracking
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob


@dataclass(frozen=True, slots=True, eq=False)
class TracksEnded:
    """These tracks of these detectors get no more crops.

    Glimpses are those seen in one searched frame alone, although its neighbors show the same shot. `measures` of
    quality are there for every track with crops.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    tracks: list[int]
    glimpses: tuple[int, ...] = ()
    measures: Mapping[int, FaceMeasures] = field(default_factory=dict)
    nbytes: int = 0


class Follower(ABC):
    """Turns the frames of one video into crops or clips for some detectors, in the order of time for each track.

    A video that is over a limit of faces or tracks, and is not truncated, gives nothing more.
    """

    def __init__(self, job: VideoJob, spec: CropSpec, limits: Limits) -> None:
        self.detectors = spec.detectors
        self._job, self._spec = job, spec
        self._selection = FaceSelection(spec.min_face_pixels, limits)

    @property
    def most_faces(self) -> int:
        """The largest number of faces seen in one frame so far."""
        return self._selection.most_faces

    @property
    def over_limit(self) -> bool:
        """Whether the video is over a limit, so that further frames change nothing."""
        return self._selection.over is not None

    @abstractmethod
    def follow(self, task: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """Take a frame, with its faces in pixels of the upright picture if it was searched."""

    def rewind(self) -> None:
        """Prepare for a second pass: the same frames come once more and are not searched again."""
        raise AssertionError("each frame is seen once")

    @abstractmethod
    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """End the tracks that are left."""

    @abstractmethod
    def skipped(self) -> SkipSummary:
        """Return a summary of the faces that the detectors were not given."""


class FaceFollower(Follower):
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
        """Begin a video; with `joins_gaps` crops join to clips although there were none in the frames between.

        With `marks_glimpses` searched frames are so close that a face seen in one alone is hardly a face.
        """
        super().__init__(job, spec, limits)
        self._cropper = Cropper(job, spec)
        self._tracking = tracking
        self._waiting: list[FrameTask] = []
        self._seen_seconds, self._seen = 0.0, dict[int, Detection]()
        self._glimpses = Glimpses() if marks_glimpses else None
        self._joins_gaps = joins_gaps
        self._shots = 0
        self._searched_with_faces = 0

    def follow(self, task: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.follow`."""
        if not self._selection.goes_on():
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
        kept = self._selection.kept(faces)
        found = [Detection(faces.boxes[place], faces.landmarks[place]) for place in kept]
        numbers = self._tracking.update(frame.pts_seconds, faces.boxes[kept])
        pairs = zip(numbers, found, strict=True)
        seen = {n: face for n, face in pairs if n is not None and self._selection.takes_track(n)}
        if self.over_limit:
            return
        if self._glimpses is not None:
            if task.starts_shot:
                self._glimpses.start_shot()
            self._glimpses.add(seen)
        waiting, self._waiting = self._waiting, []
        for between in waiting:
            passed, span = between.frame.pts_seconds - self._seen_seconds, frame.pts_seconds - self._seen_seconds
            share = min(1.0, max(0.0, passed / span)) if span > 0 else 0.5
            for number in sorted(self._seen.keys() & seen.keys()):
                face = interpolated(self._seen[number], seen[number], share)
                position = between.position + self._shots
                yield from self._cropper.take(between.frame, position, number, face, found=False)
        position = self._searched_with_faces if self._joins_gaps else task.position + self._shots
        for number, face in seen.items():
            yield from self._cropper.take(frame, position, number, face, found=True)
        self._searched_with_faces += bool(seen)
        self._seen_seconds, self._seen = frame.pts_seconds, seen

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.finish`."""
        yield from self._ended(self._tracking.end_all())

    def skipped(self) -> SkipSummary:
        """See `Follower.skipped`."""
        return self._selection.skipped(self._cropper.longest_dropped)

    def _ended(self, numbers: list[int]) -> Iterator[FaceInput | TracksEnded]:
        if numbers:
            yield from self._cropper.end(numbers)
            glimpses = self._glimpses.end(numbers) if self._glimpses is not None else ()
            yield TracksEnded(self._job, self.detectors, numbers, glimpses, self._cropper.measures(numbers))


def interpolated(before: Detection, after: Detection, share: float) -> Detection:
    """Return the face at `share` (0 to 1) of the way from one detection to another."""
    part = np.float32(share)
    box = before.box + (after.box - before.box) * part
    return Detection(box, before.landmarks + (after.landmarks - before.landmarks) * part)
