"""What travels between the stages: plain records, each knowing how many bytes it keeps alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepscan.errors import InputError
    from deepscan.runtime.frames import Frame, VideoInfo
    from deepscan.runtime.results import VideoResult

RESULT_BYTES = 4096
SEGMENT_BYTES = 256


@dataclass(slots=True, eq=False)
class VideoJob:
    """One input on its way through the pipeline.

    Attributes:
        index: its place among the inputs, which is its place in the results.
        path: of the file.
        problem: why it cannot be scanned, where that is known beforehand.
        started: `time.monotonic()` when decoding began.
        share_done: how much of it has been decoded, 0 to 1; for progress only.
    """

    index: int
    path: str
    problem: InputError | None = None
    started: float = 0.0
    share_done: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A decoded frame on its way to the faces stage.

    Attributes:
        small: BGR [h, w, 3] to search for faces, or None where boxes are interpolated.
        starts_shot: the frame before it belongs to another shot.
    """

    job: VideoJob
    frame: Frame
    small: NDArray[np.uint8] | None
    starts_shot: bool

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive."""
        return self.frame.picture.nbytes + (0 if self.small is None else self.small.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class VideoDecoded:
    """The end of a video, after its last `Look`.

    Attributes:
        info: what the file says of itself; None where not one frame of it could be decoded.
        frames: how many frames were looked at.
        failure: why the video cannot be scanned, if it cannot.
        damage: what was not decoded of a video that can be.
    """

    job: VideoJob
    info: VideoInfo | None
    frames: int
    failure: InputError | None
    damage: str | None
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """One face of one frame, as its detector wants to see it: RGB uint8 [size, size, 3]."""

    job: VideoJob
    track: int
    seconds: float
    pixels: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive."""
        return self.pixels.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class TracksEnded:
    """These tracks get no more crops."""

    job: VideoJob
    tracks: list[int]
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoFollowed:
    """The end of a video, after its last crop.

    Attributes:
        most_faces: the largest number of faces seen in one frame, small ones included.
        small_faces: how many sightings were of faces too small to be scored.
    """

    job: VideoJob
    decoded: VideoDecoded
    most_faces: int
    small_faces: int
    nbytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VideoScored:
    """A finished result on its way out."""

    result: VideoResult

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive, estimated."""
        segments = sum(len(track.timeline) for track in self.result.details)
        return RESULT_BYTES + SEGMENT_BYTES * segments


ToFaces = Look | VideoDecoded
ToInfer = FaceCrop | TracksEnded | VideoFollowed
