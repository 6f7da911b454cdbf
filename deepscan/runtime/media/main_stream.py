"""Which of a file's video streams is the video: the moving one, not a cover."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import av
from av.stream import Disposition

from deepscan.errors import UnsupportedInput

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

COVERS: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
PICTURE_CODECS: Final = frozenset("bmp gif jpeg2000 jpegxl ljpeg mjpeg png tiff webp".split())
# A stream that has so many pictures before another one has its second is the one that moves.
PROOF_PICTURES: Final = 250
# Chapters of a film have pictures too, and a lecture has slides, but far fewer than the film or the camera.
MANY_TIMES: Final = 10


@dataclass(frozen=True, slots=True)
class MainStream:
    """The main video stream.

    Attributes:
        index: its number among all streams.
        others: how many further video streams move.
    """

    index: int
    others: int = 0


def video_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams that do not say that they are covers."""
    return [stream for stream in container.streams.video if not stream.disposition & COVERS]


def must_be_counted(container: InputContainer) -> bool:
    """Tell whether the pictures of each stream have to be counted to find the main one: headers may tell as much."""
    streams = video_streams(container)
    return len(streams) > 1 and not all(stream.frames for stream in streams)


def counted_pictures(container: InputContainer) -> Counter[int]:
    """Count the pictures of each video stream by demuxing, until it is plain which ones move.

    The container has to be opened again afterwards.
    """
    streams = video_streams(container)
    counts: Counter[int] = Counter()
    try:
        for packet in container.demux(streams):
            counts[packet.stream_index] += packet.size > 0
            if counts[packet.stream_index] >= PROOF_PICTURES:
                break
    except (av.FFmpegError, OSError):  # whoever decodes it will meet it again, and say so
        pass
    return counts


def main_stream(container: InputContainer, counts: Counter[int] | None = None) -> MainStream:
    """Return the main video stream: FFmpeg's choice, unless that is a still picture beside a moving one.

    Args:
        container: open.
        counts: pictures of each stream, where headers do not tell.

    Raises:
        UnsupportedInput: there is none, or no decoder for it.
    """
    streams = video_streams(container) or _only_thumbnails(container)
    if not streams:
        content = "sound but no video" if container.streams.audio else "no video stream"
        raise UnsupportedInput(f"The file holds {content}: only videos can be scanned.")
    counted = Counter() if counts is None else counts
    pictures = {stream.index: stream.frames or counted[stream.index] for stream in streams}
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if len(streams) > 1:
        most = max(streams, key=lambda one: pictures[one.index])
        own, many = pictures[stream.index], pictures[most.index]
        stream = most if own <= 1 < many or own * MANY_TIMES <= many else stream
    if stream.codec_context is None:
        raise UnsupportedInput("FFmpeg has no decoder for its video codec: convert the file to a common codec.")
    others = [one for one in streams if one != stream and not _is_cover_beside(one, pictures, pictures[stream.index])]
    return MainStream(stream.index, len(others))


def _is_cover_beside(stream: VideoStream, pictures: dict[int, int], most: int) -> bool:
    """Tell whether a stream is a still, or a few, beside another one of `most` pictures."""
    own = pictures[stream.index]
    return own <= 1 < most or (_name(stream) in PICTURE_CODECS and own * MANY_TIMES <= most)


def _only_thumbnails(container: InputContainer) -> list[VideoStream]:
    """Return the streams that are not attached pictures: stills in files that hold nothing else."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def _name(stream: VideoStream) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""
