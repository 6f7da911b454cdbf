"""Length of a video: what its file states, how far that can be trusted, and what demuxing all of it finds."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Final

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from deepscan.runtime.media.stream_clock import LONGEST_PICTURE_SECONDS, STANDING_SECONDS, StreamClock

AV_FORMAT_TIMES_JUMP: Final = 0x0200  # FFmpeg's AVFMT_TS_DISCONT
# Formats whose files can be concatenated; their clocks then restart.
JOINABLE: Final = frozenset("flv live_flv h264 hevc vvc mpegvideo m4v obu mjpeg ivf".split())
# Formats that store a length. FFmpeg estimates that of others, or includes the time before the start.
WRITTEN_LENGTHS: Final = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "avi", "flv"])
MOV, MATROSKA, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"
# Stated lengths differ a little from what a file holds: by a few frames where a stream states its own.
MISSING_FRAMES_IGNORED: Final = 2.5
MISSING_MOMENT_IGNORED: Final = 0.12
MISSING_SECONDS_IGNORED: Final = 1.0
MISSING_SHARE_IGNORED: Final = 0.05
COVERED_SHARE: Final = 0.5
STANDING_FRAMES: Final = 8
TIME_OF_DAY: Final = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d*)?)")
MOST_KEYS: Final = 1 << 13


def clock_for(
    container: InputContainer, stream: VideoStream, frame_seconds: float, *, joined: bool
) -> StreamClock | None:
    """Return the clock that corrects the stream's times as its format requires; None for streams without times."""
    if stream.time_base is None:
        return None
    jumps = bool(container.format.flags & AV_FORMAT_TIMES_JUMP)
    stands = container.format.name == MOV and _stands_still(stream)
    restarts = jumps or joined or stands or container.format.name in JOINABLE
    return StreamClock(
        stream.time_base,
        frame_seconds=frame_seconds,
        restarts=restarts,
        restarts_at_keys=container.format.name == MATROSKA,
        jumps=jumps,
        stands=stands,
        by_decoding=restarts and container.format.name != MATROSKA,  # FFmpeg guesses its decoding times
    )


@dataclass(frozen=True, slots=True)
class StatedLength:
    """Length by the header of a file: best estimate from the video's own start, and that of the longest stream.

    `is_own` tells whether the file states exactly the length of this stream.
    """

    seconds: float | None
    is_own: bool
    whole_seconds: float | None


def start_seconds(stream: VideoStream) -> float | None:
    """Return when the video starts according to FFmpeg's probing, in the file's own seconds."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def stated_length(container: InputContainer, stream: VideoStream, origin: float | None) -> StatedLength:
    """Return the length of the video by the header of its file.

    `origin` is the presentation time of the first picture, in the file's own seconds, if known.
    """
    name, base = container.format.name, stream.time_base
    whole = (container.duration or 0) / av.time_base
    start = origin or 0.0
    if name == MATROSKA:  # it states the end of the last picture, not the length
        own = _duration_tag(stream)
        end = whole if own is None else own
        return StatedLength(end - start if end > start else None, own is not None, whole or None)
    own = None if stream.duration is None or base is None else float(stream.duration * base)
    seconds = own or whole
    return StatedLength(
        seconds if seconds > 0 else None,
        is_own=name == MOV and bool(own),
        whole_seconds=whole if whole and name in WRITTEN_LENGTHS else None,
    )


def missing_part(stated: StatedLength, *, reached: float, last_seconds: float, frame_seconds: float) -> str | None:
    """Return a remark on how much of a video that was read to its end could be decoded; None if all of it.

    The last decoded frame ends `reached` seconds after the first one begins; `last_seconds` is the latest time of any
    stream, in the file's own seconds.
    """
    if stated.is_own and stated.seconds is not None:
        tolerance = max(MISSING_FRAMES_IGNORED * frame_seconds, MISSING_MOMENT_IGNORED)
        whole, missing = stated.seconds, stated.seconds - reached
    else:
        whole = stated.whole_seconds or 0.0
        tolerance = max(MISSING_SECONDS_IGNORED, MISSING_SHARE_IGNORED * whole)
        missing = whole - max(last_seconds, reached)
        whole = reached + missing
    if missing <= tolerance:
        return None
    return f"only the first {reached:.1f} of {whole:.1f} seconds could be decoded"


def index_is_whole(container: InputContainer, stream: VideoStream, stated: StatedLength) -> bool:
    """Tell whether the container's index lists every key frame, so that the file need not be demuxed to find them.

    For Matroska, whose index FFmpeg reads at the first seek, this only rules out odd indexes.
    """
    entries, base, name = stream.index_entries, stream.time_base, container.format.name
    if base is None or not len(entries) or _has_hole(stream) or _stands_still(stream):
        return False
    if name == MATROSKA:
        return True
    first = next((entry for entry in entries if not entry.is_discard), entries[0])
    covered, seconds = float((entries[-1].timestamp - first.timestamp) * base), stated.seconds or 0.0
    if name == MOV:  # an index of fragments may be incomplete
        return stream.frames > 0 and covered <= seconds + MISSING_SECONDS_IGNORED
    return name == AVI and len(entries) > 1 and covered >= COVERED_SHARE * seconds


def index_is_in_order(stream: VideoStream, first: Packet[VideoStream]) -> bool:
    """Tell whether the positions in Matroska's index ascend with its times, and equal times hide none of it.

    The index has been read; `first` is the first packet of the stream.
    """
    places = [-1 if entry.pos is None else entry.pos for entry in stream.index_entries]
    if not places or first.pos is None:
        return True
    return places[0] <= first.pos and all(before <= after for before, after in pairwise(places))


def _stands_still(stream: VideoStream) -> bool:
    """Tell whether time stands still at the end of the index, which FFmpeg writes into MP4 after a jump."""
    entries, base = stream.index_entries, stream.time_base
    if base is None or len(entries) < 2 * STANDING_FRAMES:
        return False
    return (entries[-1].timestamp - entries[-1 - STANDING_FRAMES].timestamp) * base < STANDING_FRAMES * STANDING_SECONDS


def _has_hole(stream: VideoStream) -> bool:
    """Tell whether the index has a gap longer than a picture lasts.

    Looking it up at steps of half that length finds such a gap.
    """
    entries, base = stream.index_entries, stream.time_base
    assert base is not None
    half = round(LONGEST_PICTURE_SECONDS / 2 / base)
    first, last = entries[0].timestamp, entries[-1].timestamp
    if last - first > half * 10_000:  # a wrong clock
        return True
    before = -1
    for time in range(first, last, half):
        found = entries.search_timestamp(time, any_frame=True)
        if found == before:
            return True
        before = found
    return False


def _duration_tag(stream: VideoStream) -> float | None:
    """Return when the stream ends by its DURATION tag, in seconds; None without a valid tag."""
    match = TIME_OF_DAY.fullmatch(stream.metadata.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@dataclass(slots=True)
class StreamSurvey:
    """Length and key frames of a stream, found by demuxing it; of bounded size, however long the stream is.

    Attributes:
        frame_seconds: distance of two frames, for streams without times.
        origin: time of the first picture in the file's own seconds, if known.
        packets, timed: number of packets, and of those with a time.
        end: end of the last picture, in the file's own seconds.
        keys: packet number and time, in the file's own seconds, of each key frame; of every second, fourth and so on
            where there are very many.
    """

    frame_seconds: float
    origin: float | None
    packets: int = 0
    end: float = -math.inf
    timed: int = 0
    keys: list[tuple[int, float]] = field(default_factory=list)
    _step: int = 1
    _keys_seen: int = 0

    def add(self, packet: Packet[VideoStream], duration_seconds: float) -> None:
        """Add the next packet, with corrected times."""
        seconds = None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)
        if seconds is not None and not packet.is_discard:
            self.timed += 1
            self.end = max(self.end, seconds + duration_seconds)
        if packet.is_keyframe and not packet.is_discard:
            if self._keys_seen % self._step == 0:
                self.keys.append((self.packets, self.keys[-1][1] if seconds is None and self.keys else seconds or 0.0))
                if len(self.keys) > MOST_KEYS:
                    del self.keys[1::2]
                    self._step *= 2
            self._keys_seen += 1
        self.packets += 1

    def finish(self, origin: float | None, *, jumps: bool) -> None:
        """Set what is known after the last packet: the time of the first picture, and whether time jumped."""
        self.origin = origin
        if jumps and self.packets:  # the stated rate is wrong
            self.frame_seconds = self.seconds / self.packets or self.frame_seconds

    @property
    def counts_frames(self) -> bool:
        """Whether most packets have no time, so that frames are counted instead."""
        return 2 * self.timed < self.packets

    @property
    def seconds(self) -> float:
        """Length of the video."""
        if self.counts_frames:
            return self.packets * self.frame_seconds
        return max(0.0, self.end - (self.origin or 0.0))

    def key_before(self, seconds: float) -> tuple[int, float]:
        """Return packet number and time of the last known key frame up to `seconds`, counted from the first picture.

        Without one, return number 0 and time -inf.
        """
        if self.counts_frames:
            known = [(number, number * self.frame_seconds) for number, _ in self.keys]
        else:
            known = [(number, time - (self.origin or 0.0)) for number, time in self.keys]
        place = bisect_right(known, seconds, key=itemgetter(1)) - 1
        return known[place] if place >= 0 else (0, -math.inf)
