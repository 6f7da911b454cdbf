"""What a scan says about each input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal[
    "scored", "no_face", "small_face", "too_short", "unreadable", "unsupported", "over_limit", "timeout", "crashed"
]
Label = Literal["fake", "real", "uncertain"]
SUCCEEDED: frozenset[Status] = frozenset({"scored", "no_face", "small_face"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of one track.

    Attributes:
        start_seconds, end_seconds: times of its first and last scored frame.
        score: probability of *fake* over the stretch, in [0, 1].
        clips: how many crops or clips it holds.
    """

    start_seconds: float
    end_seconds: float
    score: float
    clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackResult:
    """One face followed through a shot.

    Attributes:
        track: its number within the video, in the order of appearance.
        start_seconds, end_seconds: times of its first and last scored frame.
        score: probability of *fake*, in [0, 1].
        clips: how many crops or clips were scored.
        timeline: the course of the score; at most 128 segments.
        sightings: in how many frames the face was found; in the others it was interpolated.
        pooled: it is too short to decide by itself; all such tracks count as one, if they have enough frames together.
        decided: the video's score is its score, or is made of its scores and those of others.

    Records of earlier versions have no more than the timeline: then these are None.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """One row of the results. Fields that do not apply are None; a score is never invented.

    Attributes:
        index: place among the inputs.
        row: place among the results; several detectors give several for each input.
        path: as given or found; undecodable bytes of a name as surrogate escapes.
        status: what became of the input.
        reason: why there is no score, or what to know about it; empty where there is nothing to say.
        score: probability that a face in it is *fake*, in [0, 1]; only for `scored`.
        label: what the score means by the detector's calibrated thresholds; only for `scored`.
        real_below, fake_from: the thresholds of that label; only for `scored`, and None in results of older versions.
        model: name of the detector; `(untrained)` behind it says that its weights are random.
        faces: the largest number of faces seen in one frame.
        tracks: how many tracks were scored.
        clips: how many crops (frame detectors) or clips (clip detectors) were scored.
        frames: how many frames were looked at.
        duration_seconds: length of the video stream, measured.
        width, height: size of the upright picture, in square pixels.
        codec: FFmpeg's name of the video codec.
        peak: the most suspicious segment of the tracks that decided the score.
        backend: what executed the detector, and where.
        precision: of the detector's arithmetic.
        weights_sha256: of the file the detector's weights came from.
        settings_sha256: of everything else that a score depends on.
        elapsed_seconds: from the start of decoding to the result, other videos' work in between included.
        content: content id of the bytes that were read (see `deepscan.runtime.media.content`); None where that is not
            known, as nobody asked, the file could not be reached, or it changed while it was read.
        details: at most 64 tracks: those long enough to decide, highest score first; then those that were pooled.
    """

    index: int
    row: int
    path: str
    status: Status
    reason: str = ""
    score: float | None = None
    label: Label | None = None
    real_below: float | None = None
    fake_from: float | None = None
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
    content: str | None = None
    details: tuple[TrackResult, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as it is in the JSONL: the same names, and floats rounded as there; `json.dumps` takes it.

        What only the journal knows is not in it (`content`, `check`), and no places within a scan (`index`, `row`).
        """
        from deepscan.runtime.store.result_records import record_of

        return record_of(self) | {"peak_clips": self.peak.clips if self.peak is not None else None}

    @property
    def succeeded(self) -> bool:
        """Whether the input could be scanned, with or without a face in it."""
        return self.status in SUCCEEDED
