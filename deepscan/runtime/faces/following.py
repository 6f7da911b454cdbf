"""Follows the faces of one video and has them cut: at each look, and between two looks by interpolation."""

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
        glimpses: those that were seen in one look alone, although the looks beside it saw the same shot.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    tracks: list[int]
    glimpses: tuple[int, ...] = ()
    nbytes: int = 0


class Follower(Protocol):
    """Turns the looks of one video into what some detectors want, in the order of time for each track.

    Attributes:
        detectors: their numbers.
        most_faces: the largest number of faces seen in one frame so far.
    """

    detectors: tuple[int, ...]
    most_faces: int

    @property
    def over_limit(self) -> bool:
        """Whether the video is over a limit, so that further looks change nothing."""

    def look(self, look: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """Take a frame, with its faces in pixels of the upright picture if it was searched."""

    def rewind(self) -> None:
        """Know that the same frames come once more, not searched again."""

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """End the tracks that are left."""

    def left_out(self) -> SkipSummary:
        """Return what the detectors did not get to see."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    seconds: float
    faces: dict[int, Detection]


class FaceFollower:
    """The faces of one video, each frame seen once; see `Follower`.

    A frame without detections waits until the next look. Then its faces lie on the straight line between the two
    sightings, for the tracks that were seen in both looks; other tracks are not guessed at.

    Detectors that want faces cut differently have followers of their own, so that none depends on another: one may
    leave out faces that the other takes.
    """

    def __init__(
        self,
        job: VideoJob,
        cut: CropSpec,
        tracking: Tracking,
        *,
        joins_gaps: bool = False,
        marks_glimpses: bool = False,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Begin a video.

        Args:
            job: the video.
            cut: what its detectors want.
            tracking: tells whose faces are whose.
            joins_gaps: crops follow each other in clips though frames between them had none.
            marks_glimpses: looks follow each other so closely that a face seen in one alone is hardly one.
            limits: of faces and tracks. A video over one that is not cut gives nothing more.
        """
        self.detectors = cut.detectors
        self.most_faces = 0
        self._job = job
        self._cutter = Cropper(job, cut)
        self._tracking = tracking
        self._waiting: list[FrameTask] = []
        self._seen = _Sighting(0.0, {})
        self._small = SmallFaces(cut.min_face_pixels)
        self._glimpses = Glimpses() if marks_glimpses else None
        self._crowd = CrowdLimit(limits)
        self._joins_gaps = joins_gaps
        self._shots = 0
        self._looks_with_faces = 0

    @property
    def over_limit(self) -> bool:
        """See `Follower.over_limit`."""
        return self._crowd.over is not None

    def look(self, look: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.look`."""
        if not self._crowd.goes_on():
            self._waiting.clear()
            return
        if faces is None:
            self._waiting.append(look)
            return
        frame = look.frame
        self._shots += look.starts_shot  # no clip reaches over a cut, although a track may
        if look.starts_shot and not look.continues:
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
            if look.starts_shot:
                self._glimpses.start_shot()
            self._glimpses.look(taken)
        waiting, self._waiting = self._waiting, []
        for between in waiting:
            share = self._share(between.frame.pts_seconds, seen)
            for number in sorted(self._seen.faces.keys() & seen.faces.keys()):
                face = interpolated(self._seen.faces[number], seen.faces[number], share)
                position = between.position + self._shots
                yield from self._cutter.take(between.frame, position, number, face, found=False)
        position = self._looks_with_faces if self._joins_gaps else look.position + self._shots
        for number, face in seen.faces.items():
            yield from self._cutter.take(frame, position, number, face, found=True)
        self._looks_with_faces += bool(seen.faces)
        self._seen = seen

    def rewind(self) -> None:
        """See `Follower.rewind`."""
        raise AssertionError("each frame is seen once")

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.finish`."""
        yield from self._ended(self._tracking.end_all())

    def left_out(self) -> SkipSummary:
        """See `Follower.left_out`."""
        return self._small.left_out(self._cutter.longest_dropped, self._crowd)

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
            yield from self._cutter.end(numbers)
            glimpses = self._glimpses.end(numbers) if self._glimpses is not None else ()
            yield TracksEnded(self._job, self.detectors, numbers, glimpses)


def interpolated(before: Detection, after: Detection, share: float) -> Detection:
    """Return the face at `share` (0..1) of the way from one sighting to another."""
    part = np.float32(share)
    box = before.box + (after.box - before.box) * part
    return Detection(box, before.landmarks + (after.landmarks - before.landmarks) * part)
