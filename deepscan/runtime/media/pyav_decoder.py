"""Decoder of one open file through FFmpeg (PyAV), on the CPU or by NVDEC, from its start or from key frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from deepscan.errors import InputError, MachineError
from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.cuda.device import Queue
from deepscan.runtime.media.decoder_choice import DecoderLost, DeviceDecoding, reason_for_cpu
from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.encryption import refuse_encrypted
from deepscan.runtime.media.file_end import file_end
from deepscan.runtime.media.frames import Frame, Picture, ignore_progress
from deepscan.runtime.media.geometry import Geometry, Orientation
from deepscan.runtime.media.hdr import Hdr
from deepscan.runtime.media.pyav_container import (
    counted_pictures,
    main_stream,
    open_container,
    plain,
    reopen_accelerated,
    size_without_decoding,
    stated_info,
    stream_facts,
    video_for_threads,
    video_stream,
)
from deepscan.runtime.media.pyav_pictures import (
    nvdec_acceleration,
    orientation_from_av,
    picture_from_av,
    picture_on_device,
)
from deepscan.runtime.media.stream_clock import StreamClock
from deepscan.runtime.media.stream_length import clock_for, start_seconds
from deepscan.runtime.system.regular_files import reading_failed

# JFIF and MPEG-1 place chroma samples in the middle of their group, all later codecs by default on its left side.
CENTERED_CHROMA_CODECS = frozenset(["mjpeg", "mpeg1video"])
SHORTEST_FRAME_SECONDS = 1e-6
# Encoders delay a key frame by at most so many B frames.
MAX_REORDERED_FRAMES = 8
# Demuxing ends after this many errors in a row.
MAX_ERRORS_IN_A_ROW = 64
# If the first picture comes late, the header's start time is a guess that may be far off.
MOST_WRONG_START_SECONDS = 1.0


class PyAVDecoder:
    """An open video that is decoded from its start, or from one of its key frames.

    If NVDEC fails before its first frame, the CPU decodes the video. Later, any error of NVDEC raises `DecoderLost`,
    even where the file is damaged: a new reader without `decoding` gives what the CPU makes of the damage. With
    `decoding`, all methods must be called by one thread.

    The open file is closed with the decoder; `threads` of the CPU decode; `moved` is called for every packet that is
    read. Limits on pixels hold for each frame anew.
    """

    def __init__(
        self,
        path: str,
        file: BinaryIO,
        *,
        threads: int,
        decoding: DeviceDecoding | None = None,
        limits: Limits = DEFAULT_LIMITS,
        moved: Callable[[], None] = ignore_progress,
    ) -> None:
        self._moved = moved
        self._path, self._file, self._limits = path, file, limits
        self._threads, self._decoding = threads, decoding
        self._queue: Queue | None = None  # while frames are decoded on the GPU
        self._sought: float | None = None
        self._skip_to = 0
        self._file_end = file_end(file)
        container, self._index, self._others = self._opened()
        self._use(container, threads)
        context = self._stream.codec_context
        self._stated_size = context.width, context.height
        self._refuse_if_stated_over(limits)
        self._rotation: int | None = None
        self._orientation = Orientation()
        self._origin = start_seconds(self._stream)
        self._decoded_count = self._damaged = 0
        self._hdr: Hdr | None = None
        self._tag = context.codec_tag
        self._position = self._end = self._latest_of_all = -math.inf
        self._read_until = 0  # offset in the file, in bytes
        self.info = stated_info(self._container, self._stream)
        self._clock = self._new_clock()
        # The indexes of AVI, FLV and MP4 hold decoding times; a key frame may be shown this much later.
        self._reordering_seconds = MAX_REORDERED_FRAMES * self.info.frame_seconds if context.has_b_frames else 0.0
        if decoding is not None:
            self._choose(decoding)

    def decode(self) -> Iterator[Frame]:
        """Decode from the demuxer's position to the end, skipping damaged packets."""
        try:
            yield from self._decoded()
            reason = "NVDEC gave no frame"
        except DecoderLost as lost:
            reason = str(lost)
            if self._decoding is not None and self._decoded_count:
                self._decoding.counts.move_to_cpu(reason)
                raise
        if self._queue is not None and self._decoding is not None and not self._decoded_count:
            self._continue_on_cpu(self._decoding, reason)
            yield from self._decoded()

    def close(self) -> None:
        """Release the file and the decoder."""
        self._container.close()
        self._file.close()

    def _opened(self) -> tuple[InputContainer, int, int]:
        """Open the file; also return the number of its main video stream, and how many others it has."""
        try:
            container = self._fresh()
            try:
                counts = counted_pictures(container)
                if counts is not None:
                    container.close()
                    container = self._fresh()
                index, others = main_stream(container, counts or {})
                refuse_encrypted(self._file, stream_id=video_stream(container, index).id)
            except BaseException:
                container.close()
                raise
        except InputError:
            refuse_encrypted(self._file)
            raise
        return container, index, others

    def _fresh(self) -> InputContainer:
        self._file.seek(0)
        return open_container(self._file, most_pixels=self._limits.pixels)

    def _use(self, container: InputContainer, threads: int) -> None:
        """Switch to this container and its main video stream."""
        self._stream = video_for_threads(container, self._index, threads=threads, most_pixels=self._limits.pixels)
        self._container = container
        self._packet_number = 0
        self._from_start = True

    def _new_clock(self) -> StreamClock | None:
        return clock_for(self._container, self._stream, self.info.frame_seconds, joined=self._file_end.joined)

    def _choose(self, decoding: DeviceDecoding) -> None:
        """Reopen the file for NVDEC if it is chosen and available."""
        reason = reason_for_cpu(stream_facts(self._stream), decoding.nvdec, decoding.requested)
        decoding.counts.count(reason)
        if reason is not None:
            return
        self._container.close()
        try:
            self._queue = decoding.queue()  # makes the GPU's context current, as FFmpeg expects
            acceleration, pixels = nvdec_acceleration(decoding.ordinal), self._limits.pixels
            accelerated = reopen_accelerated(self._file, acceleration, index=self._index, most_pixels=pixels)
            self._use(accelerated, threads=1)  # More threads would only use more surfaces.
        except (DecoderLost, MachineError) as error:
            self._continue_on_cpu(decoding, str(error))

    def _continue_on_cpu(self, decoding: DeviceDecoding, reason: str) -> None:
        """Reopen the file for the CPU, and return to the position last sought."""
        decoding.counts.move_to_cpu(reason)
        self._queue = None
        self._container.close()
        self._use(self._fresh(), self._threads)
        self._clock = self._new_clock()
        self._damaged = 0
        if self._sought is not None:
            self._seek(self._sought)

    def _decoded(self) -> Iterator[Frame]:
        for packet in self._packets():
            try:
                natives = packet.decode()
            except av.FFmpegError as error:
                if self._queue is not None:
                    raise DecoderLost(f"NVDEC failed ({plain(error)})") from error
                self._damaged += 1
                continue
            for native in natives:
                try:
                    frame = self._frame(native)
                except (av.FFmpegError, MachineError) as error:  # unknown colors, or a failing GPU
                    if self._queue is not None:
                        raise DecoderLost(f"NVDEC's picture cannot be used ({plain(error)})") from error
                    self._damaged += 1
                else:
                    yield frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Demux from the current position, with corrected times, until too many errors follow each other."""
        errors = 0
        while errors < MAX_ERRORS_IN_A_ROW:
            try:
                for packet in cast("Iterator[Packet[VideoStream]]", self._container.demux()):
                    errors = 0
                    self._moved()
                    if packet.stream.index != self._stream.index:  # `packet.stream_index` is not set at the end
                        self._note_time(packet)
                    elif self._take(packet):
                        yield packet
                return
            except av.FFmpegError:
                errors += 1
                self._damaged += 1
            except OSError as error:
                raise reading_failed(error) from error

    def _take(self, packet: Packet[VideoStream]) -> bool:
        """Correct a packet's times; tell whether to decode it."""
        if not packet.size:  # the end
            return True
        self._note_time(packet)
        if self._clock is not None:
            self._clock.correct(packet)
        if self._from_start and packet.pts is not None and packet.time_base is not None and not packet.is_discard:
            first = float(packet.pts * packet.time_base)
            if self._origin is None or abs(first - self._origin) > MOST_WRONG_START_SECONDS:
                self._origin = first
            self._from_start = False
        number = self._packet_number
        self._packet_number += 1
        return number >= self._skip_to

    def _note_time(self, packet: Packet[VideoStream]) -> None:
        """Record the latest time and offset of any stream, for files that are cut off or joined."""
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._latest_of_all = max(self._latest_of_all, end)
        self._read_until = max(self._read_until, (packet.pos or 0) + packet.size)

    def _frame(self, native: av.VideoFrame) -> Frame:
        self._damaged += native.is_corrupt
        self._limits.check_pixels(native.width, native.height)
        base = native.time_base or self._stream.time_base
        expected = min(self._position + self.info.frame_seconds, self._end)
        if native.pts is None or base is None:
            seconds = max(expected, 0.0)
        else:
            seconds = float(native.pts * base)
            if self._origin is None:
                self._origin = seconds
            seconds -= self._origin
            # Decoders return frames in order, but the times of H.264 in AVI may fall back.
            if seconds < self._position + SHORTEST_FRAME_SECONDS:
                seconds = expected
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if native.rotation != self._rotation:
            self._rotation, self._orientation = native.rotation, orientation_from_av(native)
        picture, handle = self._picture(native)
        self._hdr = picture.color.hdr or self._hdr
        frame = Frame(
            index=self._decoded_count,
            pts_seconds=seconds,
            picture=picture,
            geometry=Geometry(native.width, native.height, aspect, self._orientation),
            native=handle,
            key_frame=(handle or native).key_frame,
            part=self._clock.part_of(native.pts) if self._clock is not None and native.pts is not None else 0,
        )
        if self._decoded_count == 0:
            self.info = replace(self.info, width=frame.geometry.width, height=frame.geometry.height)
        self._decoded_count += 1
        self._position = seconds
        self._end = seconds + self._shown_seconds(native.duration)
        return frame

    def _shown_seconds(self, ticks: int | None) -> float:
        """Return how long a picture is shown, by its packet if that says it."""
        return self.info.frame_seconds if self._clock is None else self._clock.duration_seconds(ticks)

    def _picture(self, native: av.VideoFrame) -> tuple[Picture | DevicePicture, av.VideoFrame | None]:
        """Return a frame's picture, and the frame that holds its planes; one on a device was copied and may go."""
        if self._queue is None or self._decoding is None or native.sw_format is None:
            return picture_from_av(native, left_chroma=self.info.codec not in CENTERED_CHROMA_CODECS)
        return self._copied(native, self._queue, self._decoding), None

    def _copied(self, native: av.VideoFrame, queue: Queue, decoding: DeviceDecoding) -> DevicePicture:
        if native.is_corrupt:
            raise DecoderLost("NVDEC gave a damaged frame")
        # FFmpeg crops frames on a device only at the right and the bottom.
        if (native.width, native.height) != self._stated_size:
            raise DecoderLost("cropped at the left or the top, or of more than one size")
        return picture_on_device(native, left_chroma=True, queue=queue, work=decoding.work)

    def _seek(self, seconds: float) -> bool:
        if self._stream.time_base is None:
            return False
        try:
            self._container.seek(self._timestamp(seconds), stream=self._stream, backward=True)
        except av.FFmpegError:
            return False
        self._position = self._end = -math.inf
        self._sought = seconds
        self._skip_to, self._from_start = 0, False
        if self._clock is not None:
            self._clock.restart()
        return True

    def _timestamp(self, seconds: float) -> int:
        assert self._stream.time_base is not None
        return round((seconds + (self._origin or 0.0)) / self._stream.time_base)

    def _refuse_if_stated_over(self, limits: Limits) -> None:
        try:
            limits.check_streams(len(self._container.streams))
            limits.check_pixels(*self._stated_size)
            if limits.pixels and not all(self._stated_size):  # FFmpeg forgets a size that it refuses to decode
                limits.check_pixels(*size_without_decoding(self._file, self._index))
        except BaseException:
            self._container.close()
            raise
