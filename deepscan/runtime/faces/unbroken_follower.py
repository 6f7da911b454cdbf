"""Following faces as the authors of clip detectors do: faces of all frames first, then tracks, then every clip of them.

The video is decoded twice, so that memory holds the boxes of all frames but the pixels of one clip per track only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np

from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.faces.clips import paper_windows
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, Timed, clip_input, piece_of
from deepscan.runtime.faces.detections import Detection, Faces
from deepscan.runtime.faces.face_selection import SkipSummary, SmallFaces
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.faces.unbroken_tracks import UnbrokenTrack, unbroken_tracks
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import nobody_watches
from deepscan.runtime.media.video_limits import CrowdLimit


class UnbrokenFollower:
    """The faces of one video by the rules of FTCN and AltFreezing; see `Follower` for the contract.

    Args:
        job: the video.
        spec: the clips of the one detector.
        stride: frames between the starts of two clips.
        limits: of faces and tracks. A video that is over one, and is not truncated, gives nothing more.
        moved: called while tracks are looked for.
    """

    def __init__(
        self,
        job: VideoJob,
        spec: CropSpec,
        *,
        stride: int,
        limits: Limits = DEFAULT_LIMITS,
        moved: Callable[[], None] = nobody_watches,
    ) -> None:
        self._moved = moved
        self.detectors = spec.detectors
        self.most_faces = 0
        self._job = job
        self._spec = spec
        self._stride = stride
        self._crowd = CrowdLimit(limits)
        self._faces: list[Faces] = []
        self._windows: list[_Windows] = []
        self._frame = 0
        self._small = SmallFaces(spec.min_face_pixels)
        self._longest_stretch = 0

    @property
    def over_limit(self) -> bool:
        """See `Follower.over_limit`."""
        return self._crowd.over is not None

    def follow(self, task: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.follow`: first all frames with their faces, then, after `rewind`, all frames without."""
        if faces is not None:
            if self._crowd.goes_on():
                self._faces.append(self._large_enough(faces))
                self.most_faces = max(self.most_faces, len(faces))
            return
        for number, windows in enumerate(self._windows):
            place = self._frame - windows.track.start
            if 0 <= place < len(windows.track.faces):
                yield from self._crop_face(task, number, windows, place)
        self._frame += 1

    def rewind(self) -> None:
        """See `Follower.rewind`."""
        for track in unbroken_tracks(self._faces if self._crowd.over is None else [], moved=self._moved):
            length = len(track.faces)
            if length < self._spec.min_frames:
                self._longest_stretch = max(self._longest_stretch, length)
            elif self._crowd.takes_track(len(self._windows)):
                self._windows.append(_Windows(track, paper_windows(length, self._spec.frames, self._stride)))

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.finish`."""
        yield TracksEnded(self._job, self.detectors, list(range(len(self._windows))))

    def skipped(self) -> SkipSummary:
        """See `Follower.skipped`; the authors do not limit the size of a face, but the caller may."""
        return self._small.skipped(self._longest_stretch, self._crowd)

    def _large_enough(self, faces: Faces) -> Faces:
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1)
        large = self._small.are_not(sides, faces.scores)
        kept = np.flatnonzero(large)[self._crowd.largest(sides[large].tolist())]
        return faces.where(np.isin(np.arange(len(faces)), kept))

    def _crop_face(self, task: FrameTask, number: int, windows: _Windows, place: int) -> Iterator[FaceInput]:
        faces = self._faces[self._frame]
        chosen = windows.track.faces[place]
        piece = piece_of(task.frame, Detection(faces.boxes[chosen], faces.landmarks[chosen]), self._spec)
        for pieces in windows.add(place, Timed(task.frame.pts_seconds, piece, self._frame)):
            yield clip_input(self._job, self._spec, number, pieces)


class _Windows:
    """The clips of one track, each made as soon as its latest frame is there."""

    def __init__(self, track: UnbrokenTrack, windows: Sequence[list[int]]) -> None:
        self.track = track
        self._windows = sorted(windows, key=max)
        # The earliest frame that the windows from each one on still need.
        self._needed = list(accumulate(map(min, reversed(self._windows)), min))[::-1]
        self._next = 0
        self._held: dict[int, Timed] = {}

    def add(self, place: int, timed: Timed) -> Iterator[list[Timed]]:
        """Take the piece of the frame at this place of the track; yield the clips that are complete with it."""
        self._held[place] = timed
        while self._next < len(self._windows) and max(self._windows[self._next]) <= place:
            yield [self._held[index] for index in self._windows[self._next]]
            self._next += 1
        needed = self._needed[self._next] if self._next < len(self._windows) else place + 1
        for index in [held for held in self._held if held < needed]:
            del self._held[index]
