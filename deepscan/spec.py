"""Specification of a detector, its input and the meaning of its scores: an immutable record inside every artifact."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec

from deepscan.errors import ModelError

Point: TypeAlias = tuple[float, float]
# Five landmarks in the order in which face detectors give them: the eye on the left of the picture, the other eye, the
# nose, the left and the right corner of the mouth.
Landmarks: TypeAlias = tuple[Point, Point, Point, Point, Point]


class SquareCrop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="square"):
    """An upright square around the box, resampled with an antialiasing filter; the frame's border is repeated outside.

    Attributes:
        scale: side of the square, in units of the longer side of the face box.
        shift_down: how far below the center of the box the center of the square lies, in units of the square's side.
    """

    scale: float
    shift_down: float


class SimilarityCrop(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="similarity"
):
    """Each frame is turned, scaled and moved by itself, so that its five landmarks come to lie on given places.

    Bilinear, without an antialiasing filter, as the authors do; black outside the frame.

    Attributes:
        target: places of the five landmarks, in units of the crop's side.
    """

    target: Landmarks


class ClipCrop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="clip"):
    """All frames of a clip are turned, scaled and moved alike, so that motion of the head stays visible.

    One similarity is fitted to the landmarks of all frames. Bilinear, without an antialiasing filter, as the authors
    do; black outside each frame's own enlarged box.

    Attributes:
        target: places of the five landmarks, in units of the crop's side.
        reach: by how much the face box is enlarged on each side, in units of its width and height.
    """

    target: Landmarks
    reach: float


CropPolicy: TypeAlias = SquareCrop | SimilarityCrop | ClipCrop


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

    def with_threshold(self, threshold: float | None) -> LabelBand:
        """Return the band with `fake_from` at a threshold, if there is one, and `real_below` at most there."""
        if threshold is None:
            return self
        return LabelBand(real_below=min(self.real_below, threshold), fake_from=threshold)


class PaperProtocol(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the authors scan a video: what `--sampling paper` does.

    Attributes:
        choice: which frames: the `first` ones, the middles of equal parts (`middles`), or evenly from the first frame
            to the last, both included (`ends`).
        frames: how many.
        tracks: `overlap`: deepscan's own tracking; `largest`: the largest face of each frame;
            `unbroken`: the rules of FTCN and AltFreezing (every frame, no gap).
        stride: frames between the starts of two clips of a track; 1 for frame detectors.
        min_frames: clip detectors: a track of fewer frames is not scored.
        min_face_pixels: as in `DetectorSpec`.
        aggregate: `max` over the tracks, or `mean` over all crops or clips.
    """

    choice: Literal["first", "middles", "ends"]
    frames: int
    tracks: Literal["overlap", "largest", "unbroken"]
    stride: int
    min_frames: int
    min_face_pixels: int
    aggregate: Literal["max", "mean"]


class DetectorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the runtime knows about a detector.

    Attributes:
        schema: version of this record's format.
        name: the word used on the command line and in results.
        title: a description in one line.
        kind: `frame` detectors score a crop, `clip` detectors score `frames` consecutive aligned crops.
        size: height and width of the square input, in pixels.
        frames: T, crops per clip; 1 for frame detectors.
        min_frames: clip detectors: consecutive crops below this number make no clip; from here to T they are mirrored.
        mean, std: normalization `(x - mean) / std` of 0..255 values, per channel; done inside the graph.
        channel_order: order of the channels after the graph's own conversion from RGB.
        crop: how a face becomes a crop.
        min_face_pixels: a face whose longer side is smaller than this, in pixels of the video, is not scored.
        mirror: whether the logit of a face is the mean over the crop and its mirror image.
        pooling: what is averaged along a track: `logit` (then calibrated) or `score`.
        calibration: the map from logit to probability.
        band: the thresholds of the labels.
        holds_in_low_quality: whether an evaluation showed that labels hold where the faces' quality is low; where it
            did not, such labels are `uncertain`.
        paper: how the authors, or those who published the figures, scan a video.
    """

    schema: Literal[2] = 2
    name: str
    title: str
    kind: Literal["frame", "clip"]
    size: int
    frames: int
    min_frames: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["RGB", "BGR"]
    crop: CropPolicy
    min_face_pixels: int
    mirror: bool
    pooling: Literal["logit", "score"]
    calibration: Calibration
    band: LabelBand
    holds_in_low_quality: bool = False
    paper: PaperProtocol

    def __post_init__(self) -> None:
        """Refuse records that contradict themselves."""
        if self.size < 1 or self.frames < 1 or self.paper.frames < 1 or self.paper.stride < 1:
            raise ValueError("size, frames and stride are at least 1")
        if not 1 <= self.min_frames <= self.frames or not 1 <= self.paper.min_frames <= self.frames:
            raise ValueError("min_frames lies between 1 and frames")
        if (self.kind == "frame") != (self.frames == 1):
            raise ValueError(f"a {self.kind} detector cannot take frames={self.frames}")
        if self.kind == "frame" and isinstance(self.crop, ClipCrop):
            raise ValueError("a frame detector has no clips to align")
        if self.kind == "clip" and (self.mirror or isinstance(self.crop, SquareCrop)):
            raise ValueError("a clip detector takes aligned crops, and no mirror images")
        if (self.paper.tracks == "unbroken") != (isinstance(self.crop, ClipCrop)):
            raise ValueError("unbroken tracks and clips aligned as one belong together")
        if not 0.0 <= self.band.real_below <= self.band.fake_from <= 1.0:
            raise ValueError("the label band needs 0 <= real_below <= fake_from <= 1")
        if min(self.std) <= 0:
            raise ValueError("std must be positive")

    @property
    def item_shape(self) -> tuple[int, ...]:
        """Shape of one item of a batch: [T, H, W, 3] or [H, W, 3]."""
        picture = (self.size, self.size, 3)
        return (self.frames, *picture) if self.kind == "clip" else picture

    @property
    def input_name(self) -> str:
        """Name of the graph's input."""
        return "clips" if self.kind == "clip" else "faces"

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return msgspec.json.encode(self).decode()


def spec_from_json(text: str, *, source: str) -> DetectorSpec:
    """Read a spec back.

    Args:
        text: what `DetectorSpec.to_json` wrote.
        source: the file it came from, for the message.

    Raises:
        ModelError: the text is not a spec, or has another schema.
    """
    try:
        return msgspec.json.decode(text, type=DetectorSpec)
    except msgspec.DecodeError as error:
        message = f"{source} carries a detector spec that this version cannot read ({error}): export it again."
        raise ModelError(message) from error
