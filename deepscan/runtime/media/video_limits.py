"""Enforcement of the limits on one video, while it is decoded and its faces are followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deepscan.errors import OverLimit
from deepscan.limits import DEFAULT_LIMITS, OPTIONS, Limits, over_limit
from deepscan.wording import plural

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


class CrowdLimit:
    """Holds what one detector gets of one video to the limits of faces and tracks.

    Attributes:
        over: set once the video is over a limit and is not truncated: nothing of it counts any more.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.over: OverLimit | None = None
        self._limits = limits
        self._frames = 0
        self._most_faces, self._cuts_tracks = 0, False

    def goes_on(self) -> bool:
        """Take the next frame; tell whether it counts."""
        self._frames += self.over is None
        return self.over is None

    def largest(self, sides: Sequence[float]) -> list[int]:
        """Return which faces of a frame to keep, by their longer sides; their order stays."""
        most = self._limits.faces
        everyone = range(len(sides))
        if not most or len(sides) <= most:
            return list(everyone)
        self._exceed(f"A frame of it has {len(sides)} faces", "faces", most)
        self._most_faces = max(self._most_faces, len(sides))
        return sorted(sorted(everyone, key=lambda face: -sides[face])[:most])

    def takes_track(self, number: int) -> bool:
        """Tell whether a track is among the first; they are numbered from 0."""
        most = self._limits.tracks
        if not most or number < most:
            return True
        self._exceed(f"It has {number + 1:,} or more tracks of faces", "tracks", most)
        self._cuts_tracks = True
        return False

    def skipped(self) -> tuple[tuple[str, ...], OverLimit | None, int]:
        """Return what was left out, in words, or else why nothing counts and after how many frames."""
        if self.over is not None:
            return (), self.over, self._frames
        truncations = []
        if self._most_faces:
            most = self._limits.faces or 0
            kept = f"largest {plural(most, 'was', f'{most} were')}"
            truncations.append(
                f"of up to {self._most_faces} faces in a frame the {kept} scored (see {OPTIONS['faces']})"
            )
        if self._cuts_tracks:
            most = self._limits.tracks or 0
            kept = f"first {plural(most, 'was', f'{most:,} were')}"
            truncations.append(f"of the tracks of faces the {kept} scored (see {OPTIONS['tracks']})")
        return tuple(truncations), None, 0

    def _exceed(self, what: str, name: str, most: int) -> None:
        if self._limits.on_limit == "skip" and self.over is None:
            self.over = over_limit(what, name, most)
