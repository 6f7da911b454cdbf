"""Opening files with FFmpeg (PyAV) safely: only the file itself, only formats that refer to no other, only videos.

Of several streams the main one is decoded; `main_stream` says which one that is.
"""

from __future__ import annotations

import errno
import math
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import BinaryIO, Final

import av
from av.codec.hwaccel import HWAccel, HWDeviceType
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from deepscan.errors import OverLimit, UnreadableInput, UnsupportedInput
from deepscan.runtime.media.decoder_choice import DecoderLost, StreamFacts
from deepscan.runtime.media.frames import VideoInfo
from deepscan.runtime.media.hdr import CURVES
from deepscan.runtime.media.stream_length import start_seconds, stated_length

# Demuxers that open other files, talk to networks or devices, or make video out of text and of single pictures; also
# those that only other builds of FFmpeg have.
REFUSED_DEMUXERS = frozenset(
    "adf alsa ass avfoundation avisynth bin codec2raw concat dash data decklink dshow dvdvideo fbdev ffmetadata "
    "gdigrab hls idf iec61883 image2 image2pipe imf jack kmsgrab lavfi libcdio mpjpeg openal oss pulse rtp rtsp "
    "sap sdp smoothstreaming sndio srt tee tty v4l2 vapoursynth vfwcap video4linux2 vobsub webm_dash_manifest "
    "webvtt x11grab xbin xcbgrab".split()
)
DEFAULT_RATE = 25.0
TOO_HIGH_RATE = 1000
# Decoders of the MPEG family add 16 pixels on each side and then go up to a multiple of 64; matters in small pictures.
ALLOCATED_SHARE = 1.1
ALLOCATED_MARGIN = 128
FFMPEG_MOST = 2**31 - 1  # the largest `max_pixels` that FFmpeg takes
# Decoders whose streams alone state the size of frames in MP4; those skip a picture before they take memory for it.
SIZE_IN_STREAM: Final = "mpeg4,h263"
PROGRESSIVE = 1  # FFmpeg's AVFieldOrder: 0 unknown, 1 progressive, from 2 on kinds of interlacing
COVERS: Final = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
PICTURE_CODECS: Final = frozenset("bmp gif jpeg2000 jpegxl ljpeg mjpeg png tiff webp".split())
# A stream that has so many pictures before another one has its second is the one that moves.
PROOF_PICTURES: Final = 250
# Chapters of a film have pictures too, and a lecture has slides, but far fewer than the film or the camera.
MANY_TIMES: Final = 10


def open_container(file: BinaryIO, *, most_pixels: int | None = None) -> InputContainer:
    """Let FFmpeg recognize an open file; it gets no protocol, and no format that refers to other files.

    `most_pixels` is the largest frame that it may decode. Probing decodes frames before their size can be checked, and
    a file of 13 KB can ask for a frame of a gigabyte.

    Raises:
        UnreadableInput: the file is in no known format.
        OverLimit: its header asks for more than FFmpeg itself allows.
    """
    try:
        return _opened(file, None, _options(most_pixels))
    except av.error.MemoryError as error:
        raise OverLimit(
            "FFmpeg refuses it, as its header asks for more than 1,000 streams or for too much memory: "
            "convert the file if you trust it."
        ) from error
    except (av.FFmpegError, ValueError, EOFError) as error:
        message = (
            f"FFmpeg finds no video in it ({plain(error)}): it is neither video nor picture, or damaged at its start."
        )
        raise UnreadableInput(message) from error


def reopen_accelerated(file: BinaryIO, acceleration: HWAccel, *, index: int, most_pixels: int | None) -> InputContainer:
    """Reopen a file, which `open_container` could open, for decoding by a device; if it cannot, raise `DecoderLost`."""
    file.seek(0)
    try:
        container = _opened(file, acceleration, _options(most_pixels))
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        raise DecoderLost(f"no decoder on the GPU ({plain(error)})") from error
    # PyAV succeeds if any stream is accelerated, even a cover picture.
    if not video_stream(container, index).codec_context.is_hwaccel:
        container.close()
        raise DecoderLost("no decoder on the GPU (FFmpeg does not use it for the main video stream)")
    return container


def size_without_decoding(file: BinaryIO, index: int) -> tuple[int, int]:
    """Return the coded size of a video whose frames may be too large to be decoded; (0, 0) where none is stated.

    They are the container's or a parser's, as no decoder is let in except those of `SIZE_IN_STREAM`, which only read
    the header of each picture. The file's position stays as it is.
    """
    position = file.tell()
    file.seek(0)
    try:
        with _opened(file, None, {"skip_frame": "all"}, codec_whitelist=SIZE_IN_STREAM) as container:
            context = video_stream(container, index).codec_context
            return context.width, context.height
    except (av.FFmpegError, ValueError, EOFError):
        return 0, 0
    finally:
        file.seek(position)


def video_stream(container: InputContainer, index: int) -> VideoStream:
    """Return the video stream of this number among all streams."""
    return next(stream for stream in container.streams.video if stream.index == index)


def stated_info(container: InputContainer, stream: VideoStream) -> VideoInfo:
    """Return what the file states about its video; width and height as coded."""
    rate = _frame_rate(stream)
    context = stream.codec_context
    return VideoInfo(
        codec=context.codec.canonical_name,
        width=context.width,
        height=context.height,
        duration_seconds=stated_length(container, stream, start_seconds(stream)).seconds,
        frame_seconds=1 / rate if rate else 1 / DEFAULT_RATE,
        bits_per_pixel=bits_per_pixel(container, stream),
    )


def bits_per_pixel(container: InputContainer, stream: VideoStream, seconds: float | None = None) -> float | None:
    """Return the bits of a stream per pixel of a frame, by its stated bitrate or else by the file's size and length.

    Without a measured length, in `seconds`, that is the stated one, which damaged clocks falsify.
    """
    by_size = 8 * container.size / seconds if seconds else container.bit_rate
    bits_per_second = stream.bit_rate or by_size
    context = stream.codec_context
    pixels_per_second = context.width * context.height * (_frame_rate(stream) or 0.0)
    return bits_per_second / pixels_per_second if bits_per_second and pixels_per_second else None


def _frame_rate(stream: VideoStream) -> float | None:
    """Return the stated frame rate; the rate of the clock's ticks sometimes passes for it."""
    rates = (stream.average_rate, stream.guessed_rate)
    return next((float(rate) for rate in rates if rate and rate < TOO_HIGH_RATE), None)


def video_for_threads(container: InputContainer, index: int, *, threads: int, most_pixels: int | None) -> VideoStream:
    """Return a video stream, set up to be decoded by `threads` threads."""
    stream = video_stream(container, index)
    context = stream.codec_context
    context.options = _options(most_pixels)
    context.thread_count = threads
    context.thread_type = "AUTO" if threads > 1 else "NONE"
    return stream


def stream_facts(stream: VideoStream) -> StreamFacts:
    """Return the facts that decide which decoder takes a video, from a stream that is not accelerated."""
    context = stream.codec_context
    return StreamFacts(
        codec=context.codec.canonical_name,
        profile=context.profile,
        pixel_format=context.pix_fmt,
        width=context.width,
        height=context.height,
        interlaced=context.field_order > PROGRESSIVE,
        nvdec_in_ffmpeg=any(known.device_type == HWDeviceType.cuda for known in context.codec.hardware_configs),
        hdr=context.color_trc in CURVES,
    )


def plain(error: BaseException) -> str:
    """Return FFmpeg's own words for an error, without Python's decoration."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def ffmpeg_versions() -> dict[str, str]:
    """Return the versions of PyAV and of FFmpeg's libraries inside it."""
    libraries = {name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())}
    return {"PyAV": av.__version__, "FFmpeg": av.ffmpeg_version_info, **libraries}


def has_nvdec() -> bool:
    """Tell whether this FFmpeg was built with NVIDIA's hardware decoder (a GPU may still be missing)."""
    return "cuda" in av.codec.hwaccel.hwdevices_available()


def _opened(
    file: BinaryIO, acceleration: HWAccel | None, options: dict[str, str], **container_options: str
) -> InputContainer:
    return av.open(
        _Seeking(file),
        "r",
        options=options,
        container_options={
            "protocol_whitelist": "none",
            "format_whitelist": _accepted_demuxers(),
            **container_options,
        },
        metadata_errors="replace",
        hwaccel=acceleration,
    )


def _options(most_pixels: int | None) -> dict[str, str]:
    """Return the options of decoders, which count the pixels they allocate: a margin around each picture included."""
    if not most_pixels:
        return {}
    allocated = max(most_pixels * ALLOCATED_SHARE, most_pixels + ALLOCATED_MARGIN * (math.sqrt(most_pixels) + 32))
    return {"max_pixels": str(min(round(allocated), FFMPEG_MOST))}


class _Seeking:
    """An open file that reports seeks to invalid offsets, as in hostile files, as an error code.

    PyAV would keep an exception and raise it later as if the disk had failed, or print it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.name, self.read, self.tell, self._file = file.name, file.read, file.tell, file

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL


@cache
def _accepted_demuxers() -> str:
    return ",".join(
        sorted(
            name
            for name in av.formats_available
            if not name.endswith("_pipe") and REFUSED_DEMUXERS.isdisjoint(name.split(","))
        )
    )


def video_streams(container: InputContainer) -> list[VideoStream]:
    """Return the video streams that are not marked as covers."""
    return [stream for stream in container.streams.video if not stream.disposition & COVERS]


def counted_pictures(container: InputContainer) -> Counter[int] | None:
    """Count the pictures of each video stream by demuxing, until it is clear which ones are videos.

    The container must be opened again afterwards. None if there is no choice, or the header states the numbers.
    """
    streams = video_streams(container)
    if len(streams) <= 1 or all(stream.frames for stream in streams):
        return None
    counts: Counter[int] = Counter()
    try:
        for packet in container.demux(streams):
            counts[packet.stream_index] += packet.size > 0
            if counts[packet.stream_index] >= PROOF_PICTURES:
                break
    except (av.FFmpegError, OSError):  # decoding will meet and report it
        pass
    return counts


def main_stream(container: InputContainer, counts: Mapping[int, int]) -> tuple[int, int]:
    """Return the main video stream: FFmpeg's choice, unless that is a still picture beside a moving one.

    `counts` are the numbers of pictures of the streams, where the header does not state them.

    Returns:
        Its number among all streams, and the number of further video streams that are no stills.

    Raises:
        UnsupportedInput: there is no video stream, or no decoder for it.
    """
    # Stills in files that hold nothing else are taken.
    pictured = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    streams = video_streams(container) or pictured
    if not streams:
        content = "sound but no video" if container.streams.audio else "no video stream"
        raise UnsupportedInput(f"The file holds {content}: only videos can be scanned.")
    pictures = {each: each.frames or counts.get(each.index, 0) for each in streams}
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if len(streams) > 1:
        most = max(streams, key=pictures.__getitem__)
        own, many = pictures[stream], pictures[most]
        stream = most if own <= 1 < many or own * MANY_TIMES <= many else stream
    if stream.codec_context is None:
        raise UnsupportedInput("FFmpeg has no decoder for its video codec: convert the file to a common codec.")

    def is_cover(other: VideoStream) -> bool:
        """Tell whether a stream holds one still, or a few, beside the main one."""
        own, main = pictures[other], pictures[stream]
        name = other.codec_context.codec.canonical_name if other.codec_context is not None else ""
        return own <= 1 < main or (name in PICTURE_CODECS and own * MANY_TIMES <= main)

    return stream.index, sum(other != stream and not is_cover(other) for other in streams)
