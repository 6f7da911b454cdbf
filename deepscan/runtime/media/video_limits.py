"""Enforcement of the limits on the length of one video, while it is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepscan.limits import DEFAULT_LIMITS, OPTIONS, Limits, over_limit

if TYPE_CHECKING:
    from deepscan.runtime.media.frames import Reader


class LengthLimit:
    """Holds one video to the limits of frames and seconds, whatever its header says.

    Attributes:
        truncated: what is left out, in words, or None.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.truncated: str | None = None
        self._limits = limits
        self._truncates = limits.on_limit == "truncate"
        self._frames = 0

    def check_length(self, reader: Reader) -> None:
        """Refuse a video whose header says that it is too long, and that really is, unless videos are truncated.

        Headers may speak of the sound, or of a clock that jumps.

        Raises:
            OverLimit: it is too long.
        """
        most = self._limits.seconds
        if most and not self._truncates and (reader.info.duration_seconds or 0.0) > most:
            self.most_seconds(reader.duration_seconds())

    def most_seconds(self, duration: float) -> float:
        """Return how much of a video of so many seconds may be looked at.

        Raises:
            OverLimit: not all of it, and videos are not truncated.
        """
        most = self._limits.seconds
        if not most or duration <= most:
            return duration
        self._exceed(f"It is {duration:,.1f} seconds long", "seconds", most)
        return most

    def ends_before(self, seconds: float) -> bool:
        """Take the next frame, which is shown at `seconds`; tell whether the video ends before it.

        Raises:
            OverLimit: the frame is one too many or too late, and videos are not truncated.
        """
        most_frames, most_seconds = self._limits.frames, self._limits.seconds
        if most_seconds and seconds > most_seconds:
            self._exceed(f"It goes on for at least {seconds:,.1f} seconds", "seconds", most_seconds)
            return True
        self._frames += 1
        if most_frames and self._frames > most_frames:
            self._exceed(f"It has {self._frames:,} or more frames to look at", "frames", most_frames)
            return True
        return False

    def _exceed(self, what: str, name: str, most: float) -> None:
        if not self._truncates:
            raise over_limit(what, name, most)
        first = f"{name[:-1]} was" if most == 1 and isinstance(most, int) else f"{most:,} {name} were"
        self.truncated = f"only the first {first} scanned (see {OPTIONS[name]})"
