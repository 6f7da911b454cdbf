"""What travels between the stages: plain records, each knowing how many bytes it keeps alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepscan.runtime.faces.cropping import FaceInput
from deepscan.runtime.faces.following import TracksEnded
from deepscan.runtime.media.frame_tasks import FrameTask

if TYPE_CHECKING:
    from deepscan.errors import InputError
    from deepscan.results import VideoResult
    from deepscan.runtime.faces.face_selection import SkipSummary
    from deepscan.runtime.media.frame_tasks import VideoJob
    from deepscan.runtime.media.frames import VideoInfo

RESULT_BYTES = 4096
SEGMENT_BYTES = 256


@dataclass(frozen=True, slots=True, eq=False)
class SecondPass:
    """All frames of the video have been searched; they come once more, to be cropped."""

    job: VideoJob
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Restarted:
    """The video's decoder gave up, and another one begins again: what came of the video so far does not count."""

    job: VideoJob
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoDecoded:
    """The end of a video, after its last `FrameTask`.

    Attributes:
        info: what the file says of itself; None where not one frame of it could be decoded.
        frames: how many frames were looked at.
        failure: why the video cannot be scanned, if it cannot.
        damage: what was not decoded of a video that can be.
        short: that fewer frames were found than were asked for.
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
    """The end of a video, after its last crop.

    Attributes:
        most_faces: the largest number of faces seen in one frame, small ones included.
        left_out: for each detector.
    """

    job: VideoJob
    decoded: VideoDecoded
    most_faces: int
    left_out: tuple[SkipSummary, ...]
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoScored:
    """The results of one video, one per detector in order, on their way out."""

    results: tuple[VideoResult, ...]

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive, estimated."""
        segments = sum(len(track.timeline) for result in self.results for track in result.details)
        return RESULT_BYTES * len(self.results) + SEGMENT_BYTES * segments


ToFaces = FrameTask | SecondPass | Restarted | VideoDecoded
ToInfer = FaceInput | TracksEnded | Restarted | VideoFollowed
