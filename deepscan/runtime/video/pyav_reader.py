"""Videos through FFmpeg (PyAV), streaming: one decoder, one file handle, memory independent of the video's length."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import av
from av.video.reformatter import VideoReformatter

from deepscan.errors import MachineError, UnreadableInput, UnsupportedInput
from deepscan.runtime.gpu.decoder_choice import DecoderLost, chosen_decoder
from deepscan.runtime.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.video.frames import Frame, Geometry, Orientation, Unshrunk, nobody_watches
from deepscan.runtime.video.pyav_container import (
    missing_part,
    open_container,
    plain,
    reopen_accelerated,
    stated_info,
    stream_facts,
    video_for_threads,
    video_streams,
)
from deepscan.runtime.video.pyav_device_pictures import Copied, nvdec_acceleration, picture_on_device
from deepscan.runtime.video.pyav_pictures import orientation_from_av, picture_from_av, shrunk_from_frame, shrunk_size
from deepscan.runtime.video.regular_files import open_regular_file

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    from deepscan.runtime.gpu.decoder_choice import DeviceDecoding
    from deepscan.runtime.gpu.device import Queue
    from deepscan.runtime.video.frames import Picture

# They place chroma samples in the middle of their group (JFIF; MPEG-1), all later ones by default on its left side.
CENTRED_CHROMA_CODECS = frozenset(["mjpeg", "mpeg1video"])
SHORTEST_FRAME_SECONDS = 1e-6
# B frames delay a key frame by at most so many frames, in what encoders make.
MAX_REORDERED_FRAMES = 8
# A file whose demuxer reports this many errors in a row is given up at that point.
MAX_ERRORS_IN_A_ROW = 64


def open_video(
    path: str, *, threads: int, limits: Limits = DEFAULT_LIMITS, moved: Callable[[], None] = nobody_watches
) -> PyAVReader:
    """Open a video file for reading.

    Only the file itself is read: FFmpeg gets an open file, no name, no protocol, and no format that refers to others.

    Args:
        path: of a regular file; undecodable bytes of a name as Python's surrogate escapes.
        threads: of the decoder.
        limits: of size, pixels and streams.
        moved: called for every packet that is read.

    Raises:
        InputError: it is no file, cannot be read, holds no video that FFmpeg can decode, or is over a limit.
    """
    file = open_regular_file(path)
    try:
        limits.check_file(os.fstat(file.fileno()).st_size)
        return PyAVReader(path, file, threads=threads, limits=limits, moved=moved)
    except BaseException:
        file.close()
        raise


class PyAVReader:
    """An open video; see `deepscan.runtime.video.frames.Reader` for the contract.

    What NVDEC does not take at its first frame, the CPU decodes. Later on, any error of NVDEC is `DecoderLost`, even if
    it is the file's: whoever starts again without `decoding` gets what the CPU makes of the damage. With `decoding` all
    is to be called by one thread.

    Args:
        path: of the file.
        file: open, and closed with the reader.
        threads: of the decoder on the CPU.
        decoding: what a GPU may decode.
        limits: of pixels and streams; frames are measured again as they come.
        moved: called for every packet that is read.
    """

    def __init__(
        self,
        path: str,
        file: BinaryIO,
        *,
        threads: int,
        decoding: DeviceDecoding | None = None,
        limits: Limits = DEFAULT_LIMITS,
        moved: Callable[[], None] = nobody_watches,
    ) -> None:
        self._path, self._file, self._limits = path, file, limits
        self._moved = moved
        self._threads, self._decoding = threads, decoding
        self._queue: Queue | None = None  # while frames are decoded on the GPU
        self._sought: float | None = None
        self._use(open_container(file, most_pixels=limits.pixels), threads)
        context = self._stream.codec_context
        self._stated_size = context.width, context.height
        self._refuse_if_stated_over(limits)
        self._other_streams = len(video_streams(self._container)) - 1
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._orientation = Orientation()
        self._origin: float | None = None
        if self._stream.start_time is not None and self._stream.time_base is not None:
            self._origin = float(self._stream.start_time * self._stream.time_base)
        self._decoded_count = self._damaged = 0
        self._position = -math.inf
        self._read_to_end = False
        self.info = stated_info(self._container, self._stream)
        # The indexes of AVI, FLV and MP4 hold decoding times: a key frame may be shown this much later.
        self._reordering_seconds = MAX_REORDERED_FRAMES * self.info.frame_seconds if context.has_b_frames else 0.0
        if decoding is not None:
            self._choose(decoding)

    def frames(self) -> Iterator[Frame]:
        """Yield every frame in presentation order.

        Raises:
            UnreadableInput: not a single frame can be decoded.
        """
        yield from self._decode()
        self._read_to_end = True
        self._refuse_if_nothing_decoded()

    def frames_at(self, seconds: Sequence[float], *, tolerance_seconds: float) -> Iterator[Frame]:
        """Yield one frame for each of the ascending times; see the contract for the tolerance.

        To be called once, on a reader that has decoded nothing yet.
        Where the container has no index of key frames, the video is decoded from its start instead.

        Raises:
            UnreadableInput: not a single frame can be decoded.
        """
        self._read_index()
        half_frame = self.info.frame_seconds / 2
        frames, latest, yielded, reached = self._decode(), None, False, -math.inf
        for target in seconds:
            if target <= reached + half_frame:
                continue
            if self._jumps(target, reached):
                frames = self._decode()
            for latest in frames:
                if latest.seconds <= reached:  # The seek went further back than the index promised.
                    continue
                slack = max(tolerance_seconds, half_frame) if latest.native.key_frame else half_frame
                if latest.seconds >= target - slack:
                    yielded = True
                    yield latest
                    break
            reached = max(reached, self._position)
        if latest is None and self._seek(0.0):  # All times lie where the file is cut off.
            latest = next(self._decode(), None)
        if latest is not None and not yielded:
            yield latest
        self._refuse_if_nothing_decoded()

    def windows(
        self, starts: Sequence[float], frames_each: int, *, tolerance_seconds: float
    ) -> Iterator[tuple[int, Frame]]:
        """Yield stretches of consecutive frames, each with its number; see the contract.

        To be called once, on a reader that has decoded nothing yet.

        Raises:
            UnreadableInput: not a single frame can be decoded.
        """
        self._read_index()
        half_frame = self.info.frame_seconds / 2
        frames, latest, reached, yielded = self._decode(), None, -math.inf, False
        for number, target in enumerate(starts):
            if self._jumps(target, reached):
                frames = self._decode()
            taken = 0
            for latest in frames:
                slack = max(tolerance_seconds, half_frame) if latest.native.key_frame else half_frame
                if latest.seconds <= reached or (not taken and latest.seconds < target - slack):
                    continue
                yielded = True
                yield number, latest
                taken += 1
                if taken == frames_each:
                    break
            reached = max(reached, self._position)
        if not yielded and self._seek(0.0):  # All times lie where the file is cut off.
            for frame in islice(self._decode(), frames_each):
                yielded = True
                yield 0, frame
        if not yielded and latest is not None:  # And there is no way back.
            yield 0, latest
        self._refuse_if_nothing_decoded()

    def duration_seconds(self) -> float:
        """Return the stated duration, or the one found by demuxing (not decoding) the whole file."""
        if self.info.duration_seconds is None:
            self.info = replace(self.info, duration_seconds=self._demuxed_seconds())
        return self.info.duration_seconds or self.info.frame_seconds

    def shrink(self, frame: Frame, longest_side: int) -> Any:
        """Return the upright picture as BGR uint8 [h, w, 3], scaled down so that its longer side fits.

        Of a frame on a device an `Unshrunk` instead; like `Pixels` no union, as most callers meet arrays only.
        """
        if frame.picture.work is not None:
            width, height = shrunk_size(frame.geometry, longest_side)
            return Unshrunk(frame, (height, width, 3))
        try:
            return shrunk_from_frame(self._reformatter, frame, longest_side)
        except av.FFmpegError as error:  # Damaged headers can declare colours that no conversion knows.
            raise UnsupportedInput(
                f"FFmpeg cannot scale its pictures ({plain(error)}): convert the file to a common codec."
            ) from error

    def damage(self) -> str | None:
        """Say what of the file was not decoded, or None."""
        found = []
        if self._other_streams:
            found.append(f"{self._other_streams} other video stream(s) in it were not scanned")
        if self._damaged:
            found.append(f"{self._damaged} damaged packets or frames")
        if self._read_to_end and (missing := missing_part(self.info, self._position)):
            found.append(missing)
        return "; ".join(found) or None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the decoder."""
        self._container.close()
        self._file.close()

    def _demuxed_seconds(self) -> float:
        """Read all packets through a second handle; streams without timestamps are counted instead."""
        first, last, packets = math.inf, -math.inf, 0
        with open_video(self._path, threads=1, limits=self._limits, moved=self._moved) as other:
            for packet in other._packets():
                packets += packet.size > 0
                if packet.pts is not None and packet.time_base is not None:
                    first = min(first, float(packet.pts * packet.time_base))
                    last = max(last, float(packet.pts * packet.time_base))
        counted = packets * self.info.frame_seconds
        return last - first + self.info.frame_seconds if last > first else counted

    def _use(self, container: InputContainer, threads: int) -> None:
        """Decode this container's main video from now on."""
        self._stream = video_for_threads(container, threads, most_pixels=self._limits.pixels)
        self._container = container

    def _choose(self, decoding: DeviceDecoding) -> None:
        """Reopen the file for NVDEC if that shall decode it, and can."""
        choice = chosen_decoder(stream_facts(self._stream), decoding.nvdec, decoding.wish)
        decoding.counts.count(choice)
        if choice.decoder == "cpu":
            return
        self._container.close()
        try:
            self._queue = decoding.queue()  # makes the GPU's context current, before FFmpeg looks for it
            # Further threads would only take more surfaces.
            self._use(
                reopen_accelerated(self._file, nvdec_acceleration(decoding.ordinal), most_pixels=self._limits.pixels),
                threads=1,
            )
        except (DecoderLost, MachineError) as error:
            self._continue_on_cpu(decoding, str(error))

    def _continue_on_cpu(self, decoding: DeviceDecoding, reason: str) -> None:
        """Open the file once more for the CPU, and go to where the demuxer stood."""
        decoding.counts.move_to_cpu(reason)
        self._queue = None
        self._container.close()
        self._file.seek(0)
        self._use(open_container(self._file, most_pixels=self._limits.pixels), self._threads)
        self._damaged = 0
        if self._sought is not None:
            self._seek(self._sought)

    def _decode(self) -> Iterator[Frame]:
        """Decode from where the demuxer stands, past damaged packets, to the end.

        Raises:
            DecoderLost: NVDEC fails after its first frame.
        """
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
                except (av.FFmpegError, MachineError) as error:  # colours that no conversion knows, or a failing GPU
                    if self._queue is not None:
                        raise DecoderLost(f"NVDEC's picture cannot be used ({plain(error)})") from error
                    self._damaged += 1
                else:
                    yield frame

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Demux, and go on after errors until there are too many in a row."""
        errors = 0
        while errors < MAX_ERRORS_IN_A_ROW:
            try:
                for packet in self._container.demux(self._stream):
                    errors = 0
                    self._moved()
                    yield packet
                return
            except av.FFmpegError:
                errors += 1
                self._damaged += 1
            except OSError as error:
                raise UnreadableInput(f"Reading the file failed ({error.strerror}): check the disk.") from error

    def _frame(self, native: av.VideoFrame) -> Frame:
        self._damaged += native.is_corrupt
        self._limits.check_pixels(native.width, native.height)
        base = native.time_base or self._stream.time_base
        expected = self._position + self.info.frame_seconds
        if native.pts is None or base is None:
            seconds = max(expected, 0.0)
        else:
            seconds = float(native.pts * base)
            if self._origin is None:
                self._origin = seconds
            seconds -= self._origin
            # Decoders put out frames in order; the times of H.264 in AVI and of joined streams may fall back.
            if seconds < self._position + SHORTEST_FRAME_SECONDS:
                seconds = expected
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if native.rotation != self._rotation:
            self._rotation, self._orientation = native.rotation, orientation_from_av(native)
        picture, handle = self._picture(native)
        frame = Frame(
            index=self._decoded_count,
            seconds=seconds,
            picture=picture,
            geometry=Geometry(native.width, native.height, aspect, self._orientation),
            native=handle,
        )
        if self._decoded_count == 0:
            self.info = replace(self.info, width=frame.geometry.width, height=frame.geometry.height)
        self._decoded_count += 1
        self._position = seconds
        return frame

    def _picture(self, native: av.VideoFrame) -> tuple[Picture, av.VideoFrame | Copied]:
        """Return a frame's picture, and what is kept of the frame for this reader."""
        if self._queue is None or self._decoding is None or native.sw_format is None:
            return picture_from_av(native, left_chroma=self.info.codec not in CENTRED_CHROMA_CODECS)
        return self._copied(native, self._queue, self._decoding), Copied(native.key_frame)

    def _copied(self, native: av.VideoFrame, queue: Queue, decoding: DeviceDecoding) -> Picture:
        if native.is_corrupt:
            raise DecoderLost("NVDEC gave a damaged frame")
        # FFmpeg crops frames on a device at the right and the bottom only.
        if (native.width, native.height) != self._stated_size:
            raise DecoderLost("cropped at the left or the top, or of more than one size")
        return picture_on_device(native, left_chroma=True, queue=queue, work=decoding.work)

    def _read_index(self) -> None:
        """Matroska reads its index at the first seek; other demuxers may lose their place by one."""
        if "matroska" in self._container.format.name:
            self._seek(0.0)

    def _jumps(self, target: float, reached: float) -> bool:
        """Seek to the last key frame up to `target`, if it lies behind what was `reached`; tell whether it did."""
        start = target - self._reordering_seconds
        return self._key_frame_before(start) > reached + self.info.frame_seconds / 2 and self._seek(start)

    def _key_frame_before(self, target: float) -> float:
        """Return the time of the last key frame up to `target` by the container's index, or -inf."""
        entries, base = self._stream.index_entries, self._stream.time_base
        index = entries.search_timestamp(self._timestamp(target)) if base is not None else -1
        if index < 0 or base is None:
            return -math.inf
        return float(entries[index].timestamp * base) - (self._origin or 0.0)

    def _timestamp(self, seconds: float) -> int:
        assert self._stream.time_base is not None
        return round((seconds + (self._origin or 0.0)) / self._stream.time_base)

    def _seek(self, seconds: float) -> bool:
        if self._stream.time_base is None:
            return False
        try:
            self._container.seek(self._timestamp(seconds), stream=self._stream, backward=True)
        except av.FFmpegError:
            return False
        self._position, self._sought = -math.inf, seconds
        return True

    def _refuse_if_stated_over(self, limits: Limits) -> None:
        try:
            limits.check_streams(len(self._container.streams))
            limits.check_pixels(*self._stated_size)
        except BaseException:
            self._container.close()
            raise

    def _refuse_if_nothing_decoded(self) -> None:
        if self._decoded_count == 0:
            raise UnreadableInput("Not one frame of it can be decoded: the file is damaged or cut short.")
