"""Tracks by the rules of FTCN and AltFreezing (test_tools/ct/operations.py): every frame searched, no gap allowed.

A track is the chain of the best overlapping faces from one frame to the next. If chains reach through the whole video,
they are the tracks. Otherwise the video is divided into stretches where the number of chains stays the same, and each
stretch gives its first chain. The video is decoded twice, so that memory holds the boxes of all frames but the pixels
of one clip per track only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.faces.clips import paper_windows
from deepscan.runtime.faces.cropping import CropSpec, FaceInput, Timed, face_box, face_input
from deepscan.runtime.faces.detections import Detection, Faces, iou
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import Follower, TracksEnded
from deepscan.runtime.faces.quality import MeasuredTrack, means_of
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import ignore_progress

FACES_CONSIDERED = 10
FACE_SCORE = 0.5
FIRST_FACE_SCORE = 0.8
MIN_OVERLAP = 0.5
# Stretches are grown from this many frames; where not even so many have a chain, the search goes on behind them.
FIRST_STRETCH = 2


@dataclass(frozen=True, slots=True)
class UnbrokenTrack:
    """Frames `start` to `start + len(faces) - 1`, and the number of the face in each frame's list."""

    start: int
    faces: tuple[int, ...]


def unbroken_tracks(frames: Sequence[Faces], *, moved: Callable[[], None] = ignore_progress) -> list[UnbrokenTrack]:
    """Find the tracks of a video from the faces of every frame, best first.

    The authors look at the ten best, of those with a score of at least 0.5 (AltFreezing:
    test_tools/ct/detection/utils.py:75-89). `moved` is called for every frame that chains were followed to.
    """
    scores = [faces.scores for faces in frames]
    counts = [int((each[:FACES_CONSIDERED] >= FACE_SCORE).sum()) for each in scores]
    boxes = [faces.boxes[:count].astype(np.float64) for faces, count in zip(frames, counts, strict=True)]
    if not boxes:
        return []
    whole = [chain for chain in _chains(boxes, scores, 0, moved=moved) if len(chain) == len(boxes)]
    if whole:
        return [UnbrokenTrack(0, tuple(chain)) for chain in whole]
    tracks, start = [], 0
    while start < len(boxes):
        chains = _chains(boxes, scores, start, moved=moved, one_stretch=True)
        length = _stretch([len(chain) for chain in chains], len(boxes) - start)
        if length:
            first = next(chain for chain in chains if len(chain) >= length)
            tracks.append(UnbrokenTrack(start, tuple(first[:length])))
        start += length or FIRST_STRETCH
    return tracks


def _chains(
    boxes: Sequence[NDArray[np.float64]],
    scores: Sequence[NDArray[np.float32]],
    start: int,
    *,
    moved: Callable[[], None],
    one_stretch: bool = False,
) -> list[list[int]]:
    """Follow each face of frame `start` as far as it goes; two chains may meet in the same face.

    With `one_stretch` no further than to where their number changes: what follows is looked at again from there, and a
    face that stays while another one flickers would be followed to the end each time.
    """
    chains = [[face] for face in _first_faces(boxes[start], scores[start])]
    growing, at_first = chains, len(chains)
    for number in range(start + 1, len(boxes)):
        growing = [chain for chain in growing if _grows(chain, boxes[number - 1], boxes[number])]
        length = number - start + 1
        if length <= FIRST_STRETCH:
            at_first = len(growing)
        if not growing or (one_stretch and len(growing) != at_first):
            break
        moved()
    return chains


def _first_faces(boxes: NDArray[np.float64], scores: NDArray[np.float32]) -> list[int]:
    """Return the faces that may begin a chain: sure ones that no better one of the frame covers."""
    return [
        face
        for face in range(len(boxes))
        if scores[face] >= FIRST_FACE_SCORE and (iou(boxes[face], boxes[:face]) <= MIN_OVERLAP).all()
    ]


def _grows(chain: list[int], before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Append the face of the next frame that overlaps the chain's last one most, if one does enough."""
    shared = iou(before[chain[-1]], after)
    if not len(shared) or shared.max() < MIN_OVERLAP:
        return False
    chain.append(int(shared.argmax()))
    return True


def _stretch(lengths: Sequence[int], left: int) -> int:
    """Return how many frames the next stretch has, or 0: it ends where the number of chains changes (`find_longest`).

    A stretch that gets to the end of the video, `left` frames away, may lose chains, but not all, at the last.
    """

    def count(end: int) -> int:
        return sum(length >= end for length in lengths)

    end = FIRST_STRETCH
    while end < left and count(end) and count(end) == count(FIRST_STRETCH):
        end += 1
    if end <= FIRST_STRETCH:
        return 0
    return end if end == left and count(end) else end - 1


class UnbrokenFollower(Follower):
    """The faces of one video by the rules of FTCN and AltFreezing; clips begin `stride` frames apart."""

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
        measures = means_of({number: windows.measured for number, windows in enumerate(self._windows)})
        yield TracksEnded(self._job, self.detectors, list(range(len(self._windows))), measures=measures)

    def skipped(self) -> SkipSummary:
        """See `Follower.skipped`; the authors do not limit the size of a face, but the caller may."""
        return self._selection.skipped(self._longest_stretch)

    def _crop_face(self, task: FrameTask, number: int, windows: _Windows, place: int) -> Iterator[FaceInput]:
        faces = self._faces[self._frame]
        chosen = windows.track.faces[place]
        face = Detection(faces.boxes[chosen], faces.landmarks[chosen])
        windows.measured.see(task.frame, face_box(task.frame, face, self._spec))
        for pieces in windows.add(place, Timed.of(task.frame, face, self._spec, self._frame)):
            yield face_input(self._job, self._spec, number, pieces)


class _Windows:
    """The clips of one track, each made as soon as its latest frame is there."""

    def __init__(self, track: UnbrokenTrack, windows: Sequence[list[int]]) -> None:
        self.track = track
        self.measured = MeasuredTrack()
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
