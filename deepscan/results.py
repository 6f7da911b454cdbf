"""Results: `VideoResult`, the single schema of a row.

The columns of the CSV, the records of the JSONL and the messages of workers are derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

Status = Literal[
    "scored", "no_face", "small_face", "too_short", "unreadable", "unsupported", "over_limit", "timeout", "crashed"
]
Label = Literal["fake", "real", "uncertain"]
QualityClass = Literal["low", "fair", "good"]
FUSED: Final = "fused"  # in place of a detector's name: the row was made of those of several detectors
SUCCEEDED: frozenset[Status] = frozenset({"scored", "no_face", "small_face"})


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A part of one track.

    Attributes:
        start_seconds, end_seconds: times of its first and last scored frame.
        score: probability of *fake*, in [0, 1].
        clips: number of crops or clips.
    """

    start_seconds: float
    end_seconds: float
    score: float
    clips: int


class TrackResult(msgspec.Struct, frozen=True, kw_only=True):
    """One face followed through a shot.

    Attributes:
        track: number within the video, in the order of appearance.
        start_seconds, end_seconds: times of its first and last scored frame.
        score: probability of *fake*, in [0, 1].
        clips: number of crops or clips scored.
        timeline: score over time, in at most 128 segments.
        sightings: number of frames in which the face was found; in the others it was interpolated.
        pooled: whether the track is too short to decide alone; all such tracks count as one if they have enough frames
            together.
        decided: whether the video's score is that of this track, or was computed from this track and others.

    In records of earlier versions the last three are None.
    """

    track: int
    start_seconds: float
    end_seconds: float
    score: float
    clips: int
    timeline: tuple[Segment, ...]
    sightings: int | None = None
    pooled: bool | None = None
    decided: bool | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """What the class of quality rests on; formulas and thresholds are in docs/results.md.

    Attributes:
        sharpness: share of the differences between neighboring pixels that a blur takes away, in [0, 1].
        blockiness: differences across the borders of blocks of 8 pixels, in units of those inside; 1 without blocks.
        bits_per_pixel: bits of the video stream per pixel of a frame; None for a picture, or if the file does not tell.
        face_pixels: longer side of the face's box, in pixels of the video.
    """

    sharpness: float
    blockiness: float
    bits_per_pixel: float | None
    face_pixels: float


class VideoResult(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the results. Fields that do not apply are None; a score is never invented.

    The fields from `path` to `elapsed_seconds` are the columns of the CSV, in this order.

    Attributes:
        index: place among the inputs.
        row: place among the results; several detectors give several for each input.
        path: as given or found; undecodable bytes of a name as surrogate escapes.
        status: how the scan of the input ended.
        reason: why there is no score, or a remark about the row; may be empty.
        score: probability that a face in it is *fake*, in [0, 1]; only for `scored`.
        label: meaning of the score by the detector's calibrated thresholds; only for `scored`.
        quality: class of the faces' quality; only for `scored`, and None in results of older versions.
        model: name of the detector, followed by `(untrained)` if its weights are random; or `fused`.
        faces: the largest number of faces seen in one frame.
        tracks: number of scored tracks.
        clips: number of scored crops (frame detectors) or clips (clip detectors).
        frames: number of frames examined.
        duration_seconds: length of the video stream, measured.
        width, height: size of the upright picture, in square pixels.
        codec: FFmpeg's name of the video codec.
        peak: the most suspicious segment of the tracks that decided the score.
        backend: the backend that executed the detector, and its device.
        precision: precision of the detector's arithmetic.
        weights_sha256: hash of the file that the detector's weights came from.
        settings_sha256: hash of everything else that a score depends on.
        elapsed_seconds: from the start of decoding to the result, including time spent on other videos.
        real_below, fake_from: the thresholds of the label; only for `scored`, and None in results of older versions.
        quality_details: what `quality` rests on: means over the tracks that decided the score.
        content: content id of the bytes that were read (see `deepscan.runtime.media.content`); None if it is not known,
            because it was not requested, the file could not be reached, or it changed while it was read.
        details: at most 64 tracks: those long enough to decide, highest score first; then those that were pooled.
    """

    index: int
    row: int
    path: str
    status: Status
    reason: str = ""
    score: float | None = None
    label: Label | None = None
    quality: QualityClass | None = None
    model: str
    faces: int = 0
    tracks: int = 0
    clips: int = 0
    frames: int = 0
    duration_seconds: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    peak: Segment | None = None
    backend: str
    precision: str
    weights_sha256: str
    settings_sha256: str
    elapsed_seconds: float
    real_below: float | None = None
    fake_from: float | None = None
    quality_details: Quality | None = None
    content: str | None = None
    details: tuple[TrackResult, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether the input could be scanned, with or without a face."""
        return self.status in SUCCEEDED

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the result in the JSONL, with rounded floats, ready for `json.dumps`.

        It has neither the fields that only the journal has (`content`, `check`) nor places in a scan (`index`, `row`).
        """
        record: dict[str, Any] = _rounded(msgspec.to_builtins(self))
        peak = record["peak"] or {}
        record |= {column: peak.get(name) for column, name in PEAK_COLUMNS.items()}
        tail = {"track_details": record["details"], "peak_clips": peak.get("clips")}
        return {name: record[name] for name in (*COLUMNS, *BESIDE_COLUMNS)} | tail

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], *, index: int = 0, row: int = 0) -> VideoResult:
        """Return the result of a record of the JSONL.

        Args:
            record: record as from `to_dict`. `content`, `track_details`, `peak_clips`, the thresholds and what is said
                about quality are optional.
            index: place among the inputs.
            row: place among the results.

        Raises:
            ValueError: the record is not one of a result.
        """
        try:
            fields = {column: record[column] for column in COLUMNS if column not in LATER_COLUMNS}
        except KeyError as error:
            raise ValueError(f"The record has no {error}.") from error
        fields |= {name: record.get(name) for name in (*LATER_COLUMNS, *BESIDE_COLUMNS, "content")}
        peak = {name: fields.pop(column) for column, name in PEAK_COLUMNS.items()}
        peak["clips"] = record.get("peak_clips", 0)
        fields["peak"] = None if peak["start_seconds"] is None else peak
        fields |= {"index": index, "row": row, "details": record.get("track_details", ())}
        return msgspec.convert(fields, cls)  # its ValidationError is a ValueError


class FrameScore(msgspec.Struct, frozen=True, kw_only=True):
    """One scored crop of a frame detector, or one scored clip: a row of a per-frame file.

    The fields are its columns. Times are in seconds from the start of the video; coordinates are in pixels of the
    upright picture and may lie outside it; eyes and corners of the mouth are right and left *of the person*.

    Attributes:
        path: path of the video, as in its row of the results.
        model: name of the detector.
        track: number of the face within the video.
        pts_seconds: time of the frame; of a clip, of its middle frame.
        frame: number of that frame among those that were decoded, from 0; with `full` sampling,
            its number in the video.
        found: whether the face was found in it; otherwise box and landmarks are interpolated.
        x, y, width, height: box of the face in it.
        right_eye_x, ..., left_mouth_y: landmarks; None where the whole picture is a face.
        start_seconds, end_seconds, frames: times of the first and last frame of the crop or clip, and their number.
        logit: output of the network; with mirror images, the mean of both.
        score: probability of *fake* in [0, 1] that the logit alone gives.
    """

    path: str
    model: str
    track: int
    pts_seconds: float
    frame: int
    found: bool
    x: float
    y: float
    width: float
    height: float
    right_eye_x: float | None = None
    right_eye_y: float | None = None
    left_eye_x: float | None = None
    left_eye_y: float | None = None
    nose_x: float | None = None
    nose_y: float | None = None
    right_mouth_x: float | None = None
    right_mouth_y: float | None = None
    left_mouth_x: float | None = None
    left_mouth_y: float | None = None
    start_seconds: float
    end_seconds: float
    frames: int
    logit: float
    score: float


FRAME_COLUMNS: Final = FrameScore.__struct_fields__


def row_number(index: int, detector: int, detectors: int) -> int:
    """Return the `row` of a result: the rows of an input follow each other, in the order of the detectors.

    Args:
        index: place of the input among the inputs.
        detector: place of the detector among the detectors.
        detectors: number of the detectors.
    """
    return index * detectors + detector


PEAK_COLUMNS: Final = {f"peak_{name}": name for name in Segment.__struct_fields__ if name != "clips"}
# Fields of the JSONL that the CSV does not have.
BESIDE_COLUMNS: Final = ("real_below", "fake_from", "quality_details")
# Columns that results of earlier versions do not have.
LATER_COLUMNS: Final = ("quality",)


def _columns() -> tuple[str, ...]:
    fields = VideoResult.__struct_fields__
    fields = fields[fields.index("path") : fields.index("elapsed_seconds") + 1]
    place = fields.index("peak")
    return (*fields[:place], *PEAK_COLUMNS, *fields[place + 1 :])


COLUMNS: Final = _columns()


def _rounded(value: Any, name: str = "") -> Any:
    """Round times to milliseconds and probabilities to six significant digits, at any depth."""
    if isinstance(value, float):
        return round(value, 3) if name.endswith("seconds") else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner, key) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
