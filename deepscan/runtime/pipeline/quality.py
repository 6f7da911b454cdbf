"""Class of a video's quality: low, fair or good, by thresholds on what was measured of its faces.

How the thresholds were chosen, and how often `lite` is wrong in each class: docs/results.md.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from deepscan.results import Quality, QualityClass
from deepscan.runtime.faces.detections import FaceMeasures
from deepscan.runtime.media.frames import VideoInfo

# Codecs that need about half the bits of H.264 for the same picture: each of their bits counts twice.
EFFICIENT_CODECS: Final = frozenset(["av1", "hevc", "vp9", "vvc"])


class Limits(NamedTuple):
    """Limits of one measure: beyond `low` it makes the class low, and a class is good only if none is short of `good`.

    More is better if `good` is the larger one. `problem` says what is wrong beyond `low`.
    """

    low: float
    good: float
    problem: str

    def is_low(self, value: float) -> bool:
        """Tell whether a value makes the class low."""
        return value < self.low if self.good > self.low else value > self.low

    def is_good(self, value: float) -> bool:
        """Tell whether a class may be good with this value."""
        return value >= self.good if self.good > self.low else value <= self.good


# By the fields of `Quality`.
LIMITS: Final = {
    "sharpness": Limits(0.45, 0.55, "blurred (sharpness {:.2f})"),
    "blockiness": Limits(1.4, 1.2, "full of blocks (blockiness {:.2f})"),
    "bits_per_pixel": Limits(0.01, 0.02, "strongly compressed ({:.4f} bits per pixel)"),
    "face_pixels": Limits(128, 150, "small ({:.0f} pixels)"),
}


def quality_of(measures: FaceMeasures | None, info: VideoInfo | None) -> Quality | None:
    """Return what was measured of the faces and of the video; None if no face was."""
    if measures is None:
        return None
    return Quality(bits_per_pixel=info.bits_per_pixel if info is not None else None, **measures._asdict())


def quality_class(quality: Quality, codec: str | None) -> QualityClass:
    """Return the class of a video, of which FFmpeg names the codec so."""
    judged = [(LIMITS[name], _judged(quality, name, codec)) for name in LIMITS]
    known = [(limits, value) for limits, value in judged if value is not None]
    if any(limits.is_low(value) for limits, value in known):
        return "low"
    return "good" if all(limits.is_good(value) for limits, value in known) else "fair"


def low_quality(quality: Quality, codec: str | None, detector: str) -> str:
    """Return why a label of this detector cannot rest on faces of low quality."""
    problems = [
        limits.problem.format(getattr(quality, name))
        for name, limits in LIMITS.items()
        if (value := _judged(quality, name, codec)) is not None and limits.is_low(value)
    ]
    return f"the faces are {', '.join(problems)}: low quality, for which {detector} was not shown to be right"


def _judged(quality: Quality, name: str, codec: str | None) -> float | None:
    """Return what the limits of a measure are compared with."""
    value: float | None = getattr(quality, name)
    if name == "bits_per_pixel" and value is not None and codec in EFFICIENT_CODECS:
        return 2 * value
    return value
