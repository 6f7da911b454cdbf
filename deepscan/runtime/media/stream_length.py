"""How long a video is: what files say, which of that can be believed, and what reading through them finds."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import av

from deepscan.runtime.media.stream_clock import LONGEST_PICTURE_SECONDS, STANDING_SECONDS, StreamClock

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

AV_FORMAT_TIMES_JUMP: Final = 0x0200  # FFmpeg's AVFMT_TS_DISCONT
# Formats whose files can be joined end to end, and then start again.
JOINABLE: Final = frozenset("flv live_flv h264 hevc vvc mpegvideo m4v obu mjpeg ivf".split())
# The others' lengths are estimated by FFmpeg, or count what comes before the start.
WRITTEN_LENGTHS: Final = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "avi", "flv"])
MOV, MATROSKA, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"
# Files state their length a little differently from what they hold. Where a stream states its own, a few frames.
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
    """Return what corrects the stream's times, as its format may need it; None for streams without any times."""
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
        by_decoding=restarts and container.format.name != MATROSKA,  # which has no decoding times: FFmpeg guesses them
    )


@dataclass(frozen=True, slots=True)
class StatedLength:
    """What the header of a file says.

    Attributes:
        seconds: the best guess of the video's length, from its own start; None where there is nothing to guess from.
        is_own: the file says it of this very stream, and exactly.
        whole_seconds: how long the longest of all its streams is, or when it ends; None where nobody wrote that down.
    """

    seconds: float | None
    is_own: bool
    whole_seconds: float | None


def start_seconds(stream: VideoStream) -> float | None:
    """Return when the video starts by what FFmpeg has seen of it, in the file's own seconds."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def stated_length(container: InputContainer, stream: VideoStream, origin: float | None) -> StatedLength:
    """Return how long the video is by the header of its file.

    Args:
        container: open.
        stream: of it.
        origin: when its first picture is shown, in the file's own seconds, as far as that is known.
    """
    name, base = container.format.name, stream.time_base
    whole = (container.duration or 0) / av.time_base
    start = origin or 0.0
    if name == MATROSKA:  # it states when the last picture ends, not how long they last together
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
    """Say how much of a video that was read to its end could be decoded, or None where that is all of it.

    Args:
        stated: what its header says.
        reached: the end of its last decoded frame, from its first one on.
        last_seconds: the latest time in any stream, as in the file.
        frame_seconds: distance of two frames.
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
    """Tell whether the container's index finds every key frame, so that nothing need be read to find them.

    Of Matroska it only tells whether the index is an odd one: FFmpeg reads that at the first seek.
    """
    entries, base, name = stream.index_entries, stream.time_base, container.format.name
    if base is None or not len(entries) or _has_hole(stream) or _stands_still(stream):
        return False
    if name == MATROSKA:
        return True
    first = next((entry for entry in entries if not entry.is_discard), entries[0])
    covered, seconds = float((entries[-1].timestamp - first.timestamp) * base), stated.seconds or 0.0
    if name == MOV:  # of fragments, nothing is known beforehand
        return stream.frames > 0 and covered <= seconds + MISSING_SECONDS_IGNORED
    return name == AVI and len(entries) > 1 and covered >= COVERED_SHARE * seconds


def index_is_in_order(stream: VideoStream, first: Packet[VideoStream]) -> bool:
    """Tell whether Matroska's index leads on in the file as time goes on, and none of it is hidden by equal times.

    Args:
        stream: its index was read.
        first: its first packet.
    """
    places = [-1 if entry.pos is None else entry.pos for entry in stream.index_entries]
    if not places or first.pos is None:
        return True
    return places[0] <= first.pos and all(before <= after for before, after in pairwise(places))


def _stands_still(stream: VideoStream) -> bool:
    """Tell whether time stands still at the end of the index, as FFmpeg writes it into MP4 after a jump."""
    entries, base = stream.index_entries, stream.time_base
    if base is None or len(entries) < 2 * STANDING_FRAMES:
        return False
    return (entries[-1].timestamp - entries[-1 - STANDING_FRAMES].timestamp) * base < STANDING_FRAMES * STANDING_SECONDS


def _has_hole(stream: VideoStream) -> bool:
    """Tell whether the index knows of no picture for longer than one lasts.

    Such a hole lies around one of the stretches of half that length that are looked up.
    """
    entries, base = stream.index_entries, stream.time_base
    assert base is not None
    half = round(LONGEST_PICTURE_SECONDS / 2 / base)
    first, last = entries[0].timestamp, entries[-1].timestamp
    if last - first > half * 10_000:  # a clock set wrong; nobody filmed for that long
        return True
    before = -1
    for time in range(first, last, half):
        found = entries.search_timestamp(time, any_frame=True)
        if found == before:
            return True
        before = found
    return False


def _duration_tag(stream: VideoStream) -> float | None:
    """Return the time at which the stream ends by its own tag, in seconds."""
    match = TIME_OF_DAY.fullmatch(stream.metadata.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


@dataclass(slots=True)
class StreamSurvey:
    """What reading through a stream without decoding finds; of bounded size, however long the stream is.

    Attributes:
        frame_seconds: distance of two frames, for streams without times.
        origin: the time of the first picture in the file's own seconds, if it is known beforehand.
        packets: how many there are.
        end: of the last picture, in the file's own seconds.
        timed: how many packets have a time.
        numbers, times: of the packets that hold key frames; the times in the file's own seconds. Where there are very
            many of them, of every second, every fourth and so on.
    """

    frame_seconds: float
    origin: float | None
    packets: int = 0
    end: float = -math.inf
    timed: int = 0
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    _step: int = 1
    _keys: int = 0

    def add(self, packet: Packet[VideoStream], duration_seconds: float) -> None:
        """Take the next packet, its times corrected."""
        seconds = None if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)
        if seconds is not None and not packet.is_discard:
            self.timed += 1
            self.end = max(self.end, seconds + duration_seconds)
        if packet.is_keyframe and not packet.is_discard:
            if self._keys % self._step == 0:
                self._remember(self.packets, self.times[-1] if seconds is None and self.times else seconds or 0.0)
            self._keys += 1
        self.packets += 1

    def finish(self, origin: float | None, *, jumps: bool) -> None:
        """Take what is known after the last packet: when the first picture is shown, and whether time jumped."""
        self.origin = origin
        if jumps and self.packets:  # the stated rate is wrong
            self.frame_seconds = self.seconds / self.packets or self.frame_seconds

    @property
    def counts_frames(self) -> bool:
        """Whether the stream has no times, so that frames are counted."""
        return 2 * self.timed < self.packets

    @property
    def seconds(self) -> float:
        """How long the video is."""
        if self.counts_frames:
            return self.packets * self.frame_seconds
        return max(0.0, self.end - (self.origin or 0.0))

    def key_before(self, seconds: float) -> tuple[int, float]:
        """Return number and time of the last known key frame up to `seconds`, from the first picture on.

        Where there is none, number 0 and the time -inf.
        """
        times = self._times_from_origin()
        place = bisect_right(times, seconds) - 1
        return (self.numbers[place], times[place]) if place >= 0 else (0, -math.inf)

    def _times_from_origin(self) -> list[float]:
        if self.counts_frames:
            return [number * self.frame_seconds for number in self.numbers]
        return [time - (self.origin or 0.0) for time in self.times]

    def _remember(self, number: int, seconds: float) -> None:
        self.numbers.append(number)
        self.times.append(seconds)
        if len(self.numbers) > MOST_KEYS:
            del self.numbers[1::2]
            del self.times[1::2]
            self._step *= 2
