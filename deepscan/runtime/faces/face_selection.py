"""Which of a frame's faces are scored: those that are large enough and within the limits; and a count of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import OverLimit
from deepscan.limits import DEFAULT_LIMITS, OPTIONS, Limits, over_limit
from deepscan.runtime.faces.detections import Faces
from deepscan.wording import plural

# A real face, shrunk, is found with a confidence of 0.85 or more down to 20 pixels of the searched picture, and of
# 0.7 to 0.8 at 15. In 38 videos without a face YuNet never was surer than 0.6, and that of specks of 13 to 15 pixels.
PLAIN_CONFIDENCE: Final = 0.8
PLAIN_PIXELS: Final = 16


@dataclass(frozen=True, slots=True)
class SkipSummary:
    """The faces of a video that one detector was not given.

    Attributes:
        small_faces: how many sightings were of faces too small to be scored.
        longest_stretch: frames of the longest stretch that was too short for a clip.
        truncations: what limits left out, in words.
        over_limit, frames_until_limit: why the video is not scored at all, and after how many frames that was known.
        plain_small_faces: how many of the sightings of small faces were of what is certainly a face.
        largest_small_face: longer side of the largest of them, in pixels.
    """

    small_faces: int = 0
    longest_stretch: int = 0
    truncations: tuple[str, ...] = ()
    over_limit: OverLimit | None = None
    frames_until_limit: int = 0
    plain_small_faces: int = 0
    largest_small_face: float = 0.0


class FaceSelection:
    """Selects the faces and tracks of one video that one detector gets, and counts the others.

    Attributes:
        most_faces: largest number of faces in one frame so far.
        over: why nothing of the video counts any more, once that is so.
    """

    def __init__(self, min_pixels: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self.most_faces = 0
        self.over: OverLimit | None = None
        self._min_pixels, self._limits = min_pixels, limits
        self._frames = self._sightings = self._plain = self._most_large = 0
        self._largest, self._cuts_tracks = 0.0, False

    def goes_on(self) -> bool:
        """Take the next frame; tell whether it counts."""
        self._frames += self.over is None
        return self.over is None

    def kept(self, faces: Faces) -> NDArray[np.intp]:
        """Return which faces of a frame to keep, in their order: the large ones, of those the largest up to a limit."""
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1)
        is_large = sides >= self._min_pixels
        plain = ~is_large & (sides >= PLAIN_PIXELS) & (faces.scores >= PLAIN_CONFIDENCE)
        self.most_faces = max(self.most_faces, len(faces))
        self._sightings += int((~is_large).sum())
        self._plain += int(plain.sum())
        self._largest = max([self._largest, *sides[plain].tolist()])
        large, most = np.flatnonzero(is_large), self._limits.faces
        if not most or len(large) <= most:
            return large
        self._exceed(f"A frame of it has {len(large)} faces", "faces", most)
        self._most_large = max(self._most_large, len(large))
        return np.sort(large[np.argsort(-sides[large], kind="stable")[:most]])

    def takes_track(self, number: int) -> bool:
        """Tell whether a track is among the first; they are numbered from 0."""
        most = self._limits.tracks
        if not most or number < most:
            return True
        self._exceed(f"It has {number + 1:,} or more tracks of faces", "tracks", most)
        self._cuts_tracks = True
        return False

    def skipped(self, longest_stretch: int) -> SkipSummary:
        """Return a summary of what the detector was not given."""
        truncations = []
        if self.over is None and self._most_large:
            most = self._limits.faces or 0
            kept = f"largest {plural(most, 'was', f'{most} were')}"
            truncations.append(
                f"of up to {self._most_large} faces in a frame the {kept} scored (see {OPTIONS['faces']})"
            )
        if self.over is None and self._cuts_tracks:
            most = self._limits.tracks or 0
            kept = f"first {plural(most, 'was', f'{most:,} were')}"
            truncations.append(f"of the tracks of faces the {kept} scored (see {OPTIONS['tracks']})")
        return SkipSummary(
            small_faces=self._sightings,
            longest_stretch=longest_stretch,
            truncations=tuple(truncations),
            over_limit=self.over,
            frames_until_limit=0 if self.over is None else self._frames,
            plain_small_faces=self._plain,
            largest_small_face=self._largest,
        )

    def _exceed(self, what: str, name: str, most: int) -> None:
        if self._limits.on_limit == "skip" and self.over is None:
            self.over = over_limit(what, name, most)
