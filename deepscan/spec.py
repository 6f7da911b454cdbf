"""What a detector expects and what its answers mean: one immutable record, kept inside every artefact."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from deepscan.errors import ModelError


class CropPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a face box becomes the picture that the detector sees.

    The crop is an upright square around the box, resampled with an antialiasing filter; outside the
    frame the border is replicated.

    Attributes:
        rule: the family of rules; `square` is the one described here.
        scale: side of the square, in units of the longer side of the face box.
        shift_down: how far below the centre of the box the centre of the square lies, in units of the square's side.
        min_face_pixels: a face whose longer side is smaller than this, in pixels of the video, is not scored.
    """

    rule: Literal["square"] = "square"
    scale: float
    shift_down: float
    min_face_pixels: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Maps a logit to the probability of *fake*: `1 / (1 + exp(-(scale * logit + offset)))`."""

    scale: float
    offset: float

    def score(self, logit: float) -> float:
        """Return the calibrated probability of *fake*, in [0, 1], of a `logit` in (-inf, inf)."""
        z = self.scale * logit + self.offset
        if z >= 0:
            return 1.0 / (1.0 + math.exp(-z))
        return math.exp(z) / (1.0 + math.exp(z))


class LabelBand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Thresholds on the score: `real` below `real_below`, `fake` from `fake_from`, `uncertain` between."""

    real_below: float
    fake_from: float


class DetectorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the runtime knows about a detector.

    Attributes:
        schema: version of this record's format.
        name: the word used on the command line and in results.
        title: one line for people.
        kind: `frame` detectors score a crop, `clip` detectors score `frames` consecutive aligned crops.
        size: height and width of the square input, in pixels.
        frames: T, crops per clip; 1 for frame detectors.
        mean, std: normalisation `(x - mean) / std` of 0..255 values, per channel; done inside the graph.
        channel_order: order of the channels after the graph's own conversion from RGB.
        crop: how a face becomes a crop.
        mirror: whether the logit of a face is the mean over the crop and its mirror image.
        pooling: what is averaged along a track: `logit` (then calibrated) or `score`.
        calibration: the map from logit to probability.
        band: the thresholds of the labels.
        paper_frames: frames per video with which the published numbers were measured (frame detectors).
    """

    schema: Literal[1] = 1
    name: str
    title: str
    kind: Literal["frame", "clip"]
    size: int
    frames: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["RGB", "BGR"]
    crop: CropPolicy
    mirror: bool
    pooling: Literal["logit", "score"]
    calibration: Calibration
    band: LabelBand
    paper_frames: int

    def __post_init__(self) -> None:
        """Refuse records that contradict themselves."""
        if self.size < 1 or self.frames < 1 or self.paper_frames < 1:
            raise ValueError("size, frames and paper_frames are at least 1")
        if (self.kind == "frame") != (self.frames == 1):
            raise ValueError(f"a {self.kind} detector cannot take {self.frames} frame(s)")
        if not 0.0 <= self.band.real_below <= self.band.fake_from <= 1.0:
            raise ValueError("the label band needs 0 <= real_below <= fake_from <= 1")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return msgspec.json.encode(self).decode()


def spec_from_json(text: str, *, source: str) -> DetectorSpec:
    """Read a spec back.

    Args:
        text: what `DetectorSpec.to_json` wrote.
        source: the file it came from, for the message.

    Raises:
        ModelError: the text is no spec, or one of another schema.
    """
    try:
        return msgspec.json.decode(text, type=DetectorSpec)
    except msgspec.DecodeError as error:
        message = f"{source} carries a detector spec that this version cannot read ({error}): export it again."
        raise ModelError(message) from error
