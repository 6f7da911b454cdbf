"""Reader of videos through FFmpeg (PyAV): one decoder, one file handle, memory independent of the video's length."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from deepscan.errors import UnreadableInput, UnsupportedInput
from deepscan.runtime.media.ebml import has_cues
from deepscan.runtime.media.file_bytes import FileBytes
from deepscan.runtime.media.frame_search import frames_near, windows_near
from deepscan.runtime.media.frames import Frame, Reader
from deepscan.runtime.media.hdr import dolby_vision_remark
from deepscan.runtime.media.pyav_container import bits_per_pixel, plain
from deepscan.runtime.media.pyav_decoder import PyAVDecoder
from deepscan.runtime.media.pyav_pictures import shrunk_from_frame
from deepscan.runtime.media.stream_length import (
    AVI,
    MATROSKA,
    MISSING_FRAMES_IGNORED,
    MOV,
    StreamSurvey,
    index_is_in_order,
    index_is_whole,
    missing_part,
    stated_length,
)
from deepscan.runtime.system.regular_files import open_regular_file
from deepscan.wording import counted, plural

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOINED = "a further file is joined to its end, which was not scanned"
# FFmpeg reads a file joined to an FLV file as one endless packet.
FLV, FLV_HEAD = "flv", b"FLV\x01"
BYTES_BETWEEN = 256


class PyAVReader(PyAVDecoder, Reader):
    """An open video; see `deepscan.runtime.media.frames.Reader` for the contract and `PyAVDecoder` for the arguments.

    Single frames and windows are found by the file's index if it is whole. Otherwise the file is demuxed twice: once
    to find its length and its key frames, and once to decode from those. Only the first call on a reader may ask for
    them. If not a single frame can be decoded, `UnreadableInput` is raised.
    """

    _prepared = False
    _measured_seconds: float | None = None
    _missing: str | None = None
    _survey: StreamSurvey | None = None

    def frames(self) -> Iterator[Frame]:
        """See `Reader.frames`."""
        yield from self.decode()
        self._refuse_if_nothing_decoded()
        self._missing = self._missing_part(self._end, self._latest_of_all)
        self._measured(self._end)

    def frames_at(self, seconds: Sequence[float], *, tolerance_seconds: float) -> Iterator[Frame]:
        """See `Reader.frames_at`."""
        self._prepare()
        frame, end = self.info.frame_seconds, self._measured_seconds or 0.0
        yield from frames_near(self, seconds, tolerance_seconds=tolerance_seconds, frame_seconds=frame, end_seconds=end)
        self._refuse_if_nothing_decoded()

    def windows(
        self, starts: Sequence[float], frames_each: int, *, tolerance_seconds: float
    ) -> Iterator[tuple[int, Frame]]:
        """See `Reader.windows`."""
        self._prepare()
        frame = self.info.frame_seconds
        yield from windows_near(self, starts, frames_each, tolerance_seconds=tolerance_seconds, frame_seconds=frame)
        self._refuse_if_nothing_decoded()

    def duration_seconds(self) -> float:
        """See `Reader.duration_seconds`; last timestamps come from the index, from the end, or from demuxing all."""
        if self._measured_seconds is None:
            self._prepare()
            self._measured(self._survey.seconds if self._survey is not None else self._indexed_seconds())
        return self._measured_seconds or self.info.frame_seconds

    def shrink(self, frame: Frame, longest_side: int) -> NDArray[np.uint8]:
        """See `Reader.shrink`."""
        try:
            return shrunk_from_frame(self._reformatter, frame, longest_side)
        except av.FFmpegError as error:  # Damaged headers can declare unknown colors.
            raise UnsupportedInput(
                f"FFmpeg cannot scale its pictures ({plain(error)}): convert the file to a common codec."
            ) from error

    def warnings(self) -> str | None:
        """See `Reader.warnings`."""
        hdr = self._hdr.remark if self._hdr is not None else dolby_vision_remark(self._tag)
        found = [hdr] if hdr is not None else []
        if self._others:
            were = plural(self._others, "was", "were")
            found.append(f"{counted(self._others, 'other video stream')} in it {were} not scanned")
        if self._damaged:
            found.append(counted(self._damaged, "damaged packet or frame", "damaged packets or frames"))
        if self._file_end.missing_share is not None:
            percent = round(100 * self._file_end.missing_share)
            share = f"{percent} %" if percent else "less than 1 %"
            found.append(f"the file is damaged: {share} of its bytes are missing at its end")
        if self._file_end.ignored:
            found.append(JOINED)
        if self._missing:
            found.append(self._missing)
        return "; ".join(found) or None

    def jump(self, target: float, reached: float) -> bool:
        """See `FrameSource.jump`."""
        if self._survey is None:
            start = target - self._reordering_seconds
            return self._key_frame_before(start) > reached + self.info.frame_seconds / 2 and self._seek(start)
        number, seconds = self._survey.key_before(target)
        if number <= self._packet_number or seconds <= reached + self.info.frame_seconds / 2:
            return False
        self._skip_to = number
        self._stream.codec_context.flush_buffers()
        self._position = self._end = -math.inf
        if self._survey.counts_frames:
            self._position, self._end = seconds - self.info.frame_seconds, seconds
        return True

    def rewind(self) -> bool:
        """See `FrameSource.rewind`."""
        return self._seek(0.0)

    @cached_property
    def _reformatter(self) -> VideoReformatter:
        return VideoReformatter()

    def _prepare(self) -> None:
        """Prepare for seeking before the first frame is decoded: read the index, or demux the whole file."""
        if self._prepared:
            return
        self._prepared = True
        matroska = self._container.format.name == MATROSKA
        searchable = not self._file_end.is_odd and (not matroska or has_cues(FileBytes(self._file)))
        in_order = True
        if searchable and matroska:
            first = next(self._packets(), None)  # shows when the video starts
            self._go_back()  # makes FFmpeg read the index
            in_order = first is not None and index_is_in_order(self._stream, first)
        stated = stated_length(self._container, self._stream, self._origin)
        if searchable and in_order and index_is_whole(self._container, self._stream, stated):
            return
        with self._opened_again() as other:
            self._survey = survey = other.survey()
            self._missing = other._missing
        self._origin, self.info = survey.origin, replace(self.info, frame_seconds=survey.frame_seconds)
        if searchable and matroska:
            self._restart()

    def _opened_again(self) -> PyAVReader:
        """Open the same file a second time, even if it has been renamed, where the system allows that."""
        path = f"/proc/self/fd/{self._file.fileno()}"
        path = path if os.path.exists(path) else self._path
        file = open_regular_file(path)
        try:
            return PyAVReader(path, file, threads=1, limits=self._limits, moved=self._moved)
        except BaseException:
            file.close()
            raise

    def survey(self) -> StreamSurvey:
        """Demux the whole file; nothing else can be read from it afterwards."""
        survey = StreamSurvey(self.info.frame_seconds, self._origin)
        for packet in self._packets():
            if packet.size:
                survey.add(packet, self._shown_seconds(packet.duration))
        survey.finish(self._origin, jumps=self._clock is not None and self._clock.jumps > 0)
        self._missing = self._missing_part(survey.seconds, self._latest_of_all)
        return survey

    def _indexed_seconds(self) -> float | None:
        """Return the length of a video whose index is whole; None if unknown."""
        stated = stated_length(self._container, self._stream, self._origin).seconds
        if self._container.format.name == AVI:  # each of its frames is in the index
            return stated
        measured = self._end_by_seeking() - (self._origin or 0.0)
        if not math.isfinite(measured) or measured <= 0:
            return stated
        # Differences by rounding or an edit list must not change which frames are sampled.
        tolerated = MISSING_FRAMES_IGNORED if self._container.format.name == MOV else 0.5
        return stated if stated and abs(stated - measured) <= tolerated * self.info.frame_seconds else measured

    def _end_by_seeking(self) -> float:
        """Return when the last picture ends, in the file's own seconds, by the packets from the last key frame on."""
        damaged, end = self._damaged, -math.inf
        assert self._stream.time_base is not None
        if not self._seek(
            float(self._stream.index_entries[-1].timestamp * self._stream.time_base) - (self._origin or 0.0)
        ):
            return end
        for packet in self._packets():
            if packet.pts is not None and packet.time_base is not None and not packet.is_discard:
                end = max(end, float(packet.pts * packet.time_base) + self._shown_seconds(packet.duration))
        self._damaged = damaged
        self._go_back()
        return end

    def _go_back(self) -> None:
        """Go back to the start as if nothing had been read."""
        if not self._seek(0.0):
            self._restart()
        self._sought = None

    def _restart(self) -> None:
        """Open the file again, to count packets from its start."""
        if self._queue is not None and self._decoding is not None:
            self._continue_on_cpu(self._decoding, "it has to be read from its start again")
            return
        self._container.close()
        self._use(self._fresh(), self._threads)
        self._clock = self._new_clock()

    def _key_frame_before(self, target: float) -> float:
        """Return the time of the last key frame up to `target` by the container's index, or -inf."""
        entries, base = self._stream.index_entries, self._stream.time_base
        index = entries.search_timestamp(self._timestamp(target)) if base is not None else -1
        if index < 0 or base is None:
            return -math.inf
        return float(entries[index].timestamp * base) - (self._origin or 0.0)

    def _measured(self, seconds: float | None) -> None:
        seconds = None if seconds is None else round(seconds, 6)
        self._measured_seconds = seconds
        bits = bits_per_pixel(self._container, self._stream, seconds)
        self.info = replace(self.info, duration_seconds=seconds, bits_per_pixel=bits)

    def _missing_part(self, reached: float, last_seconds: float) -> str | None:
        """Return a remark on what is missing of a video that was read to its end, or None."""
        if self._container.format.name == FLV and FLV_HEAD in FileBytes(self._file).at(self._read_until, BYTES_BETWEEN):
            return JOINED
        if self._clock is not None and self._clock.jumps:  # then the stated length means nothing
            return None
        return missing_part(
            stated_length(self._container, self._stream, self._origin),
            reached=reached,
            last_seconds=last_seconds,
            frame_seconds=self.info.frame_seconds,
        )

    def _refuse_if_nothing_decoded(self) -> None:
        if self._decoded_count == 0:
            raise UnreadableInput("Not one frame of it can be decoded: the file is damaged or cut short.")
