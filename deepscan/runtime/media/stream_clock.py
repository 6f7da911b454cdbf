"""A continuous clock for streams whose timestamps restart, jump or wrap around."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

# In formats whose clocks may jump, FFmpeg itself treats a step of ten seconds as a jump. In other formats a slide may
# last for minutes, but not for an hour.
JUMP_SECONDS: Final = 10.0
LONGEST_PICTURE_SECONDS: Final = 3600.0
# Decoding times ascend, apart from a muxer's rounding. Presentation times are reordered: by a second at most in streams
# that can be joined, by the length of a slide in files.
RESTART_SECONDS: Final = 0.1
REORDERED_SECONDS: Final = 1.0
# No packet before a key frame is shown after it, but some muxers mark every picture as a key frame.
REORDERED_FRAMES: Final = 8
WRAP_BITS: Final = 33
MOST_PARTS_REMEMBERED: Final = 64
# No camera takes 2,000 pictures a second; FFmpeg writes a step of one tick where it cannot write a jump.
STANDING_SECONDS: Final = 0.0005


class StreamClock:
    """Corrects the timestamps of a stream's packets, in file order, so that time never falls back or jumps.

    A step back, or a step forward longer than a picture lasts, is a restart: time continues one frame later.

    Args:
        time_base: seconds of one tick.
        frame_seconds: duration of a frame that states none.
        restarts: whether clocks of the format may restart, as in streams that can be joined.
        restarts_at_keys: whether they may restart at a key frame, where a restart differs from reordering.
        jumps: whether clocks of the format may jump and wrap around, as in broadcasts.
        by_decoding: whether decoding times tell a restart, and not presentation times.
        stands: whether the clock of this file stands still somewhere.

    Attributes:
        jumps: number of corrections since the file was opened.
    """

    def __init__(
        self,
        time_base: Fraction,
        *,
        frame_seconds: float,
        restarts: bool,
        restarts_at_keys: bool = False,
        jumps: bool,
        by_decoding: bool,
        stands: bool = False,
    ) -> None:
        self.jumps = 0
        self._ticks_per_second = float(1 / time_base)
        self._restarts, self._wraps, self._by_decoding = restarts, jumps, by_decoding
        self._restarts_at_keys = restarts_at_keys
        self._forward = (JUMP_SECONDS if jumps else LONGEST_PICTURE_SECONDS) * self._ticks_per_second
        self._standing = STANDING_SECONDS * self._ticks_per_second if stands else 0.0
        self._frame = max(1, round(frame_seconds * self._ticks_per_second))
        self._ahead = self._frame
        self._offset = 0
        self._part_starts: list[int] = []
        self._forgotten = 0
        self._latest_pts: int | None = None
        self._latest_dts: int | None = None

    def restart(self) -> None:
        """Forget all corrections, after seeking: the file's own times hold again."""
        self._offset = self._forgotten = 0
        self._latest_pts = self._latest_dts = None
        self._part_starts.clear()

    def correct(self, packet: Packet[VideoStream]) -> None:
        """Correct the timestamps of the stream's next packet."""
        pts, dts = self.corrected(packet.pts, packet.dts, packet.duration or 0, key=packet.is_keyframe)
        if pts != packet.pts:
            packet.pts = pts
        if dts != packet.dts:
            packet.dts = dts

    def corrected(
        self, pts: int | None, dts: int | None, duration: int = 0, *, key: bool = False
    ) -> tuple[int | None, int | None]:
        """Return presentation and decoding time of the next packet, in ticks; None stays None."""
        if self._wraps and pts is not None and dts is not None:
            pts = self._beside(pts, dts)
        by_decoding = dts is not None and (self._by_decoding or pts is None)
        time, latest = (dts, self._latest_dts) if by_decoding else (pts, self._latest_pts)
        if time is not None and latest is not None:
            step = time + self._offset - latest
            back = self._most_back(by_decoding=by_decoding, key=key)
            if step < -back or step > self._forward or 0 < step < self._standing:
                self._offset += self._frame - step
                if not 0 < step <= self._forward:  # a clock that stands still starts no new part
                    self._note_restart(time if pts is None else pts)
                self._latest_pts = self._latest_dts = None
                self.jumps += 1
        if self._standing <= duration <= self._forward and duration:
            self._frame = duration
        if dts is not None:
            dts = self._latest_dts = dts + self._offset
        if pts is not None:
            pts += self._offset
            self._latest_pts = pts if self._latest_pts is None else max(self._latest_pts, pts)
        return pts, dts

    def _beside(self, pts: int, dts: int) -> int:
        """Return the presentation time on the clock of the decoding time, in case only one of them has jumped yet.

        FFmpeg derives decoding times in MPEG-PS from earlier packets.
        """
        if dts - pts > 1 << (WRAP_BITS - 1):
            pts += 1 << WRAP_BITS
        if -REORDERED_SECONDS * self._ticks_per_second <= pts - dts <= self._forward:
            self._ahead = pts - dts
        return dts + self._ahead

    def part_of(self, ticks: int) -> int:
        """Return the number, from 0, of the part of a joined stream in which a picture is shown."""
        return self._forgotten + bisect_right(self._part_starts, ticks)

    def _note_restart(self, ticks: int) -> None:
        """Record where a part begins; only the latest are kept, as the decoder lags by a few pictures."""
        self._part_starts.append(ticks + self._offset)
        if len(self._part_starts) > MOST_PARTS_REMEMBERED:
            del self._part_starts[0]
            self._forgotten += 1

    def duration_seconds(self, ticks: int | None) -> float:
        """Return how long a picture is shown, in seconds; if unknown, as long as the one before."""
        known = ticks if ticks and 0 < ticks <= self._forward else self._frame
        return known / self._ticks_per_second

    def _most_back(self, *, by_decoding: bool, key: bool) -> float:
        if self._restarts_at_keys and key:
            return max(RESTART_SECONDS * self._ticks_per_second, REORDERED_FRAMES * self._frame)
        seconds = LONGEST_PICTURE_SECONDS
        if self._restarts:
            seconds = RESTART_SECONDS if by_decoding else REORDERED_SECONDS
        return seconds * self._ticks_per_second
