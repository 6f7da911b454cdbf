"""Which of a frame's faces are scored: those that are large enough and within the limits; and a count of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepscan.errors import OverLimit
    from deepscan.runtime.media.video_limits import CrowdLimit

# A real face, shrunk, is found with a confidence of 0.85 or more down to 20 pixels of the searched picture, and of
# 0.7 to 0.8 at 15. In 38 videos without a face YuNet never was surer than 0.6, and that of specks of 13 to 15 pixels.
PLAIN_CONFIDENCE: Final = 0.8
PLAIN_PIXELS: Final = 16


@dataclass(frozen=True, slots=True)
class SkipSummary:
    """The faces of a video that one detector was not given.

    Attributes:
        small_faces: how many sightings were of faces too small to be scored.
        longest_stretch: frames of the longest stretch that was too short for a clip; 0 where there was none.
        truncations: what limits left out, in words.
        over_limit: why the video is not scored at all, where it is over a limit.
        frames_until_limit: frames that were looked at until it was.
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


class SmallFaces:
    """Counts the small faces of one video.

    Args:
        min_pixels: faces whose longer side is smaller are not scored.
    """

    def __init__(self, min_pixels: int) -> None:
        self._min_pixels = min_pixels
        self._sightings = self._plain = 0
        self._largest = 0.0

    def are_not(self, sides: NDArray[np.floating], confidences: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Take the faces of a frame, their longer sides [K] in pixels; return which are large enough."""
        large: NDArray[np.bool_] = sides >= self._min_pixels
        plain = ~large & (sides >= PLAIN_PIXELS) & (confidences >= PLAIN_CONFIDENCE)
        self._sightings += int((~large).sum())
        self._plain += int(plain.sum())
        self._largest = max([self._largest, *sides[plain].tolist()])
        return large

    def skipped(self, longest_stretch: int, crowd: CrowdLimit) -> SkipSummary:
        """Return a summary of what the detector was not given."""
        truncations, over, frames = crowd.skipped()
        return SkipSummary(self._sightings, longest_stretch, truncations, over, frames, self._plain, self._largest)
