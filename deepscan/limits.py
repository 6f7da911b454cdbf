"""How much one input may ask for, and what happens to one that asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from deepscan.arguments import MOST_BYTES, MOST_SECONDS, real_number, whole_number
from deepscan.errors import OverLimit, UsageError
from deepscan.wording import counted, plural

if TYPE_CHECKING:
    from deepscan.runtime.media.frames import Reader

OnLimit = Literal["skip", "truncate"]

OPTIONS: Final = {
    "file_bytes": "--max-file-size",
    "pixels": "--max-pixels",
    "frames": "--max-frames",
    "seconds": "--max-duration",
    "streams": "--max-streams",
    "faces": "--max-faces",
    "tracks": "--max-tracks",
}
# What can be cut can change scores; the rest decides only whether there are any.
CUT_BY_TRUNCATING: Final = ("frames", "seconds", "faces", "tracks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one input may have; None or 0: no limit.

    Attributes:
        file_bytes: 64 GiB: twelve hours at 12 Mbit/s.
        pixels: per decoded frame; 16384 x 8192, the largest that films all around and photographs (100 megapixels)
            have. A frame of it takes 200 MB, and a decoder may hold seventeen. FFmpeg itself goes up to twice that.
        frames: looked at; twelve hours at 60 frames per second.
        seconds: twelve hours: longer than films and shifts of a body camera, not than recordings of a whole day.
        streams: of every kind; a disc has some 40, a broadcast multiplex 100.
        faces: per frame, of those large enough to be scored; a choir or a lecture has fewer. A picture drawn to look
            like faces may have thousands, and each costs as much as a video's only one.
        tracks: per video; twelve hours with a cut every second and two faces have fewer.
        on_limit: `skip`: the input is not scored. `truncate`: the first frames, seconds and tracks and the largest
            faces are, and the result says so; file size, pixels and streams cannot be cut.
    """

    file_bytes: int | None = 1 << 36
    pixels: int | None = 1 << 27
    frames: int | None = 12 * 3600 * 60
    seconds: float | None = 12 * 3600.0
    streams: int | None = 128
    faces: int | None = 200
    tracks: int | None = 100_000
    on_limit: OnLimit = "skip"

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: a limit is negative or no number, or `on_limit` is unknown.
        """
        if self.on_limit not in get_args(OnLimit):
            raise UsageError(f"--on-limit {self.on_limit!r} must be one of: {', '.join(get_args(OnLimit))}.")
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if name == "seconds":
                checked = real_number(option, value, least=0, most=MOST_SECONDS)
            else:
                checked = whole_number(option, value, least=0, most=MOST_BYTES)
            object.__setattr__(self, name, checked)  # Python's own number for NumPy's

    def scoring(self) -> dict[str, int | float | None]:
        """Return what a score may depend on: nothing where inputs over a limit get none."""
        if self.on_limit == "skip":
            return {}
        return {name: getattr(self, name) or None for name in CUT_BY_TRUNCATING}

    def check_file(self, size_bytes: int) -> None:
        """Refuse a file that is too large.

        Raises:
            OverLimit: it is.
        """
        if self.file_bytes and size_bytes > self.file_bytes:
            raise _over(f"The file has {size_bytes:,} bytes", "file_bytes", self.file_bytes)

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse frames that are too large.

        Raises:
            OverLimit: they are.
        """
        if self.pixels and width * height > self.pixels:
            raise _over(f"Its frames have {width} x {height} = {width * height:,} pixels", "pixels", self.pixels)

    def check_streams(self, count: int) -> None:
        """Refuse a file of too many streams.

        Raises:
            OverLimit: it is one.
        """
        if self.streams and count > self.streams:
            raise _over(f"The file has {counted(count, 'stream')}", "streams", self.streams)


DEFAULT_LIMITS: Final = Limits()


class LengthLimit:
    """Holds one video to the limits of frames and seconds, whatever its header says.

    Attributes:
        cut: what is left out, or None.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.cut: str | None = None
        self._limits = limits
        self._truncates = limits.on_limit == "truncate"
        self._frames = 0

    def check_length(self, reader: Reader) -> None:
        """Refuse a video whose header says that it is too long, if it really is; one that may be cut is not refused.

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
            OverLimit: not all, and videos are not cut.
        """
        most = self._limits.seconds
        if not most or duration <= most:
            return duration
        self._exceed(f"It is {duration:,.1f} seconds long", "seconds", most)
        return most

    def ends_before(self, seconds: float) -> bool:
        """Take the next frame, which is shown at `seconds`; tell whether the video is cut before it.

        Raises:
            OverLimit: the frame is one too many or too late, and videos are not cut.
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
            raise _over(what, name, most)
        first = f"{name[:-1]} was" if most == 1 and isinstance(most, int) else f"{most:,} {name} were"
        self.cut = f"only the first {first} scanned (see {OPTIONS[name]})"


class CrowdLimit:
    """Holds what one detector gets of one video to the limits of faces and tracks.

    Attributes:
        over: set once the video is over a limit and not cut: nothing of it counts any more.
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

    def left_out(self) -> tuple[tuple[str, ...], OverLimit | None, int]:
        """Return what was cut, in words, or why nothing counts and after how many frames."""
        if self.over is not None:
            return (), self.over, self._frames
        cut = []
        if self._most_faces:
            most = self._limits.faces or 0
            kept = f"largest {plural(most, 'was', f'{most} were')}"
            cut.append(f"of up to {self._most_faces} faces in a frame the {kept} scored (see {OPTIONS['faces']})")
        if self._cuts_tracks:
            most = self._limits.tracks or 0
            kept = f"first {plural(most, 'was', f'{most:,} were')}"
            cut.append(f"of the tracks of faces the {kept} scored (see {OPTIONS['tracks']})")
        return tuple(cut), None, 0

    def _exceed(self, what: str, name: str, most: int) -> None:
        if self._limits.on_limit == "skip" and self.over is None:
            self.over = _over(what, name, most)


def _over(what: str, name: str, most: float) -> OverLimit:
    truncate = ", or take --on-limit truncate" if name in CUT_BY_TRUNCATING else ""
    return OverLimit(f"{what}, and {OPTIONS[name]} is {most:,}: raise that to have it scanned{truncate}.")
