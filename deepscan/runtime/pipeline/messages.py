"""Messages between the stages; each knows how many bytes it keeps alive."""

from __future__ import annotations

from dataclasses import dataclass

from deepscan.errors import InputError
from deepscan.results import VideoResult
from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import VideoInfo

RESULT_BYTES = 4096
SEGMENT_BYTES = 256


@dataclass(frozen=True, slots=True, eq=False)
class SecondPass:
    """Beginning of the second pass, in which all frames come once more to be cropped."""

    job: VideoJob
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Restarted:
    """Restart of a video with another decoder; all earlier messages of the video are void."""

    job: VideoJob
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoDecoded:
    """End of a video, after its last `FrameTask`.

    Attributes:
        info: properties of the video; None if no frame could be decoded.
        frames: number of frames that were sampled.
        failure: reason why the video cannot be scanned.
        damage: remark on parts that could not be decoded.
        short: remark that fewer frames were found than asked for.
    """

    job: VideoJob
    info: VideoInfo | None
    frames: int
    failure: InputError | None
    damage: str | None
    short: str | None = None
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoFollowed:
    """End of a video, after its last crop.

    `most_faces` counts small ones too; `skipped` is what each detector was not given, in the order of the detectors.
    """

    job: VideoJob
    decoded: VideoDecoded
    most_faces: int
    skipped: tuple[SkipSummary, ...]
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoScored:
    """Results of one video, one per detector in order."""

    results: tuple[VideoResult, ...]

    @property
    def nbytes(self) -> int:
        """Estimate of the memory that the message keeps alive."""
        segments = sum(len(track.timeline) for result in self.results for track in result.details)
        return RESULT_BYTES * len(self.results) + SEGMENT_BYTES * segments


ToFaces = FrameTask | SecondPass | Restarted | VideoDecoded
ToInfer = FaceInput | TracksEnded | Restarted | VideoFollowed
