"""Following faces as the authors of clip detectors do: faces of all frames first, then tracks, then every clip of them.

The video is decoded twice, so that memory holds the boxes of all frames but the pixels of one clip per track only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.faces.clips import paper_windows
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, Timed, clip_input, piece_of
from deepscan.runtime.faces.detections import Detection, Faces
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import Follower, TracksEnded
from deepscan.runtime.faces.unbroken_tracks import UnbrokenTrack, unbroken_tracks
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import ignore_progress


class UnbrokenFollower(Follower):
    """The faces of one video by the rules of FTCN and AltFreezing.

    Args:
        job: see `Follower`.
        spec: see `Follower`; the clips of the one detector.
        stride: frames between the starts of two clips.
        limits: see `Follower`.
        moved: called while tracks are looked for.
    """

    def __init__(
        self,
        job: VideoJob,
        spec: CropSpec,
        *,
        stride: int,
        limits: Limits = DEFAULT_LIMITS,
        moved: Callable[[], None] = ignore_progress,
    ) -> None:
        super().__init__(job, spec, limits)
        self._moved, self._stride = moved, stride
        self._faces: list[Faces] = []
        self._windows: list[_Windows] = []
        self._frame = 0
        self._longest_stretch = 0

    def follow(self, task: FrameTask, faces: Faces | None) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.follow`: first all frames with their faces, then, after `rewind`, all frames without."""
        if faces is not None:
            if self._selection.goes_on():
                self._faces.append(faces.where(self._selection.kept(faces)))
            return
        for number, windows in enumerate(self._windows):
            place = self._frame - windows.track.start
            if 0 <= place < len(windows.track.faces):
                yield from self._crop_face(task, number, windows, place)
        self._frame += 1

    def rewind(self) -> None:
        """See `Follower.rewind`."""
        for track in unbroken_tracks([] if self.over_limit else self._faces, moved=self._moved):
            length = len(track.faces)
            if length < self._spec.min_frames:
                self._longest_stretch = max(self._longest_stretch, length)
            elif self._selection.takes_track(len(self._windows)):
                self._windows.append(_Windows(track, paper_windows(length, self._spec.frames, self._stride)))

    def finish(self) -> Iterator[FaceInput | TracksEnded]:
        """See `Follower.finish`."""
        yield TracksEnded(self._job, self.detectors, list(range(len(self._windows))))

    def skipped(self) -> SkipSummary:
        """See `Follower.skipped`; the authors do not limit the size of a face, but the caller may."""
        return self._selection.skipped(self._longest_stretch)

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
