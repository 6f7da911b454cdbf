"""What travels between the stages: plain records, each knowing how many bytes it keeps alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepscan.errors import InputError, OverLimit
    from deepscan.results import VideoResult
    from deepscan.runtime.cuda.device import Pixels
    from deepscan.runtime.media.content import PlannedContent
    from deepscan.runtime.media.frames import DeviceFrame, Frame, VideoInfo

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
        abandoned: it is over a limit for every detector, so that nothing more of it need be decoded.
        planned: what the file held when the scan was planned; None if nobody looked.
        content: content id of what was really read; None as long as it is unknown.
    """

    index: int
    path: str
    problem: InputError | None = None
    started: float = 0.0
    share_done: float = 0.0
    abandoned: bool = False
    planned: PlannedContent | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A decoded frame on its way to the faces stage.

    Attributes:
        small: BGR [h, w, 3] to search for faces, or the plan of one on a device; None where boxes are interpolated or
            known already.
        starts_shot: the frame before it belongs to another shot.
        position: one more than that of the frame before it, if the two follow each other in the video.
        continues: a shot starts, but tracks may go on in it, see `MarkedFrame`.
    """

    job: VideoJob
    frame: Frame
    small: NDArray[np.uint8] | DeviceFrame | None
    starts_shot: bool
    position: int
    continues: bool = False

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive."""
        return self.frame.picture.nbytes + (0 if self.small is None else self.small.nbytes)


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
    """The end of a video, after its last `Look`.

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
class FaceInput:
    """One face as detectors want to see it: a crop of one frame, or a clip.

    Attributes:
        detectors: numbers of the detectors that want it like this.
        track: whose face it is.
        start_seconds, end_seconds: times of its first and its last frame.
        frames: how many frames of the video it shows; fewer than its length where a clip was mirrored.
        pixels: RGB uint8 [size, size, 3] or [T, size, size, 3].
        sightings: positions of those of its frames in which the face was found, ascending; not of those in which it
            was interpolated.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    track: int
    start_seconds: float
    end_seconds: float
    frames: int
    pixels: Pixels
    sightings: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive."""
        return int(self.pixels.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class TracksEnded:
    """These tracks of these detectors get no more crops.

    Attributes:
        glimpses: those that were seen in one look alone, although the looks beside it saw the same shot.
    """

    job: VideoJob
    detectors: tuple[int, ...]
    tracks: list[int]
    glimpses: tuple[int, ...] = ()
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class SkipSummary:
    """What one detector did not get to see of a video's faces.

    Attributes:
        small_faces: how many sightings were of faces too small to be scored.
        longest_stretch: frames of the longest stretch that was too short for a clip; 0 where there was none.
        cut: what limits left out, in words.
        over_limit: why the video is not scored at all, where it is over a limit.
        frames_until_limit: frames that were looked at until it was.
        plain_small_faces: how many of the sightings of small faces were of faces that are plainly there.
        largest_small_face: longer side of the largest of them, in pixels.
    """

    small_faces: int = 0
    longest_stretch: int = 0
    cut: tuple[str, ...] = ()
    over_limit: OverLimit | None = None
    frames_until_limit: int = 0
    plain_small_faces: int = 0
    largest_small_face: float = 0.0


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
    """A finished result on its way out."""

    result: VideoResult

    @property
    def nbytes(self) -> int:
        """Memory that this message keeps alive, estimated."""
        segments = sum(len(track.timeline) for track in self.result.details)
        return RESULT_BYTES + SEGMENT_BYTES * segments


ToFaces = Look | SecondPass | Restarted | VideoDecoded
ToInfer = FaceInput | TracksEnded | Restarted | VideoFollowed
