"""Decoded frames as the pipeline sees them, and the contract of whatever reads them from a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.geometry import Geometry

if TYPE_CHECKING:  # it loads OpenCV, which the supervisor's process does not need
    from deepscan.runtime.media.color import Color


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The planes of one decoded picture, uncopied, as the decoder left them.

    Attributes:
        planes: Y, Cb and Cr, or Y alone for gray video; G, B and R where `color` has the identity matrix. uint8, or
            uint16 for more than 8 bits. [H, W] each.
        bit_depth: bits per sample.
        color: what the numbers mean.
        left_chroma: chroma samples sit on the left luma sample of their group (MPEG-2 and later), not in its middle.
    """

    planes: tuple[NDArray[Any], ...]
    bit_depth: int
    color: Color
    left_chroma: bool

    @property
    def nbytes(self) -> int:
        """Memory of the planes, in bytes."""
        return sum(plane.nbytes for plane in self.planes)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded frame.

    Attributes:
        index: position among the frames that were decoded, from 0.
        pts_seconds: presentation time from the start of the video, from the file's timestamps.
        geometry: how the planes become the upright picture.
        native: the decoder's own handle, only for the reader that made the frame.
        key_frame: whether it was decoded without others.
        part: number, from 0, of the part that the frame belongs to, in a file joined from several or whose clock jumps.
    """

    index: int
    pts_seconds: float
    picture: Picture | DevicePicture
    geometry: Geometry
    native: Any
    key_frame: bool = False
    part: int = 0


def host_picture(frame: Frame) -> Picture:
    """Return the picture of a frame that lies in the host's memory; another one is a `TypeError`."""
    if isinstance(frame.picture, DevicePicture):
        raise TypeError("a frame in a device's memory, for code that reads those in the host's")
    return frame.picture


@dataclass(frozen=True, slots=True, eq=False)
class DeviceFrame:
    """A frame on a device, to be scaled by the face detector as it fills its input.

    `shape` is (height, width, 3) of the upright picture that is searched.
    """

    picture: DevicePicture
    geometry: Geometry
    shape: tuple[int, int, int]
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a file's video stream.

    Attributes:
        codec: FFmpeg's name of the codec, or the format of a picture: a key of `picture_reader.FORMATS`, heif, avif.
        width, height: size of the upright picture, in square pixels.
        duration_seconds: length as stated by the file, until it is measured; None if not stated.
        frame_seconds: nominal distance of two frames.
        bits_per_pixel: bits of the stream per pixel of a frame, by the bitrate that the file states or that follows
            from its size; None if it is not known, or for a picture.
        still: whether it is a still picture, with a single frame.
    """

    codec: str
    width: int
    height: int
    duration_seconds: float | None
    frame_seconds: float
    bits_per_pixel: float | None = None
    still: bool = False


def ignore_progress() -> None:
    """Ignore progress, for callers without a watchdog."""


class Reader(Protocol):
    """One open video, closed as a context manager. Every method may raise `InputError`; after `close` none is called.

    Attributes:
        info: facts about the video; those that must be measured, once they are.
    """

    info: VideoInfo

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frames(self) -> Iterator[Frame]:
        """Yield every frame in presentation order."""

    def frames_at(self, seconds: Sequence[float], *, tolerance_seconds: float) -> Iterator[Frame]:
        """Seek, and yield one frame for each of the ascending times; fewer if several fall on one frame.

        A key frame at most `tolerance_seconds` earlier may stand in for the exact frame.
        """

    def windows(
        self, starts: Sequence[float], frames_each: int, *, tolerance_seconds: float
    ) -> Iterator[tuple[int, Frame]]:
        """Seek, and yield windows of `frames_each` consecutive frames from ascending times, each with its number.

        A key frame at most `tolerance_seconds` earlier may begin a window. Windows share no frame: one that would begin
        inside another begins after it. A window at the end of the video may have fewer frames.
        """

    def duration_seconds(self) -> float:
        """Return the length of the video: as decoded, or by its last timestamps, which may demux the whole file."""

    def shrink(self, frame: Frame, longest_side: int) -> NDArray[np.uint8]:
        """Return the upright picture as BGR uint8 [h, w, 3], scaled to fit `longest_side`; not for device frames."""

    def warnings(self) -> str | None:
        """Return remarks on what was not decoded, or None; valid once the frames are exhausted."""

    def close(self) -> None:
        """Release the file and the decoder."""
