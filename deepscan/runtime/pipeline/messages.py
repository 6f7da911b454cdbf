"""The messages between the stages: plain records that know how many bytes they keep alive."""

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
    """The beginning of the second pass: all frames were searched, and come once more to be cropped."""

    job: VideoJob
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Restarted:
    """A new beginning: the video's decoder gave up, and what came before from another one does not count."""

    job: VideoJob
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoDecoded:
    """The end of a video, after its last `FrameTask`.

    Attributes:
        info: what the file says about itself; None if not one frame could be decoded.
        frames: number of frames that were sampled.
        failure: why the video cannot be scanned, if it cannot.
        damage: what could not be decoded of a video that is scanned anyway.
        short: the remark that fewer frames were found than were asked for, if so.
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
        skipped: what each detector was not given.
    """

    job: VideoJob
    decoded: VideoDecoded
    most_faces: int
    skipped: tuple[SkipSummary, ...]
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
