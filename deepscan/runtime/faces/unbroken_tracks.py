"""Tracks by the rules of FTCN and AltFreezing (test_tools/ct/operations.py): every frame searched, no gap allowed.

A track is the chain of the best overlapping faces from one frame to the next. If chains reach through the whole video,
they are the tracks. Otherwise the video is divided into stretches where the number of chains stays the same, and each
stretch gives its first chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepscan.runtime.faces.detections import iou
from deepscan.runtime.media.frames import ignore_progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.faces.detections import Faces

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
    """Find the tracks of a video.

    Args:
        frames: the faces of every frame, best first (AltFreezing: test_tools/ct/detection/utils.py:75-89 looks at the
            ten best, of those with a score of at least 0.5).
        moved: called for every frame that chains were followed to; a long video has millions.
    """
    boxes = [_considered(faces) for faces in frames]
    scores = [faces.scores for faces in frames]
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


def _considered(faces: Faces) -> NDArray[np.float64]:
    count = int((faces.scores[:FACES_CONSIDERED] >= FACE_SCORE).sum())
    return faces.boxes[:count].astype(np.float64)


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

    Args:
        lengths: how far each chain reaches.
        left: frames up to the end of the video. A stretch that gets there may lose chains, but not all, at the last.
    """

    def count(end: int) -> int:
        return sum(length >= end for length in lengths)

    end = FIRST_STRETCH
    while end < left and count(end) and count(end) == count(FIRST_STRETCH):
        end += 1
    if end <= FIRST_STRETCH:
        return 0
    return end if end == left and count(end) else end - 1
