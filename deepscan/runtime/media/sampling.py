"""Which frames of a video are scored, and which of those are searched for faces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final, Literal

from deepscan.limits import DEFAULT_LIMITS, OPTIONS, Limits, over_limit
from deepscan.runtime.media.frames import Frame, Reader, VideoInfo

# Files of these with a single picture are still pictures.
STILL_CODECS: Final = frozenset(["apng", "gif", "webp", "png", "mjpeg"])

Choice = Literal["all", "first", "middles", "ends", "windows"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of each video are looked at.

    Attributes:
        choice: `all` frames; the `first` ones; single frames at the `middles` of equal parts, or from one of the
            `ends` to the other; or `windows` of consecutive frames, one in the middle of each equal part.
        count: how many frames or windows; unused for `all`.
        window_frames: frames of a window.
        nearby: whether key frames that lie well may stand in for the exact ones: cheaper where a file has many.
        detect_every: where frames follow each other, every how many of them faces are searched for; boxes between them
            are interpolated.
        twice: whether every frame is searched in a first pass over the video, and cropped in a second.
    """

    choice: Choice
    count: int = 0
    window_frames: int = 0
    nearby: bool = False
    detect_every: int = 1
    twice: bool = False

    @property
    def sparse(self) -> bool:
        """Whether single frames are taken, between which nothing is known."""
        return self.choice in ("middles", "ends")

    @property
    def asked(self) -> float:
        """How many frames are asked for, if the video has them."""
        return math.inf if self.choice == "all" else self.count * max(1, self.window_frames)


class LengthLimit:
    """Holds one video to the limits of frames and seconds; `truncated` says in words what is left out."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.truncated: str | None = None
        self._limits = limits
        self._truncates = limits.on_limit == "truncate"
        self._frames = 0

    def check_length(self, reader: Reader) -> None:
        """Refuse a video whose header says that it is too long, and that really is, unless videos are truncated.

        Headers may speak of the sound, or of a clock that jumps. What is refused raises `OverLimit`, here and below.
        """
        most = self._limits.seconds
        if most and not self._truncates and (reader.info.duration_seconds or 0.0) > most:
            self.most_seconds(reader.duration_seconds())

    def most_seconds(self, duration: float) -> float:
        """Return how much of a video of so many seconds may be looked at."""
        most = self._limits.seconds
        if not most or duration <= most:
            return duration
        self._exceed(f"It is {duration:,.1f} seconds long", "seconds", most)
        return most

    def ends_before(self, seconds: float) -> bool:
        """Take the next frame, which is shown at `seconds`; tell whether the video is cut before it."""
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


def sampled_frames(
    reader: Reader, sampling: Sampling, length: LengthLimit | None = None
) -> Iterator[tuple[int, Frame]]:
    """Yield the frames to score in the order of time, each with the number of its window.

    `length` holds the video to its limits, by default the usual ones, and knows afterwards what was left out.

    Raises:
        InputError: the video cannot be decoded, or is over a limit.
    """
    length = length or LengthLimit()
    length.check_length(reader)
    for window, frame in _sampled(reader, sampling, length):
        if length.ends_before(frame.pts_seconds):
            return
        yield window, frame


def _sampled(reader: Reader, sampling: Sampling, length: LengthLimit) -> Iterator[tuple[int, Frame]]:
    if sampling.choice == "all":
        yield from _one_window(reader.frames())
    elif sampling.choice == "first":
        yield from _one_window(islice(reader.frames(), sampling.count))
    elif sampling.choice == "windows":
        yield from _windows(reader, sampling, length)
    else:
        duration = length.most_seconds(reader.duration_seconds())
        part = duration / sampling.count
        if sampling.choice == "middles":
            times = [part * (number + 0.5) for number in range(sampling.count)]
        else:
            last = max(0.0, duration - reader.info.frame_seconds)
            times = [last * number / max(1, sampling.count - 1) for number in range(sampling.count)]
        frames = reader.frames_at(times, tolerance_seconds=part if sampling.nearby else 0.0)
        yield from _one_window(frames)


def _windows(reader: Reader, sampling: Sampling, limit: LengthLimit) -> Iterator[tuple[int, Frame]]:
    """Yield windows spread over the video; all its frames, as one, where they would come to touch."""
    part = limit.most_seconds(reader.duration_seconds()) / sampling.count
    length = sampling.window_frames * reader.info.frame_seconds
    if part <= length:
        yield from _one_window(reader.frames())
        return
    starts = [part * number + (part - length) / 2 for number in range(sampling.count)]
    # A key frame may begin a window early, as long as it stays in its own part.
    yield from reader.windows(starts, sampling.window_frames, tolerance_seconds=(part - length) / 2)


def _one_window(frames: Iterator[Frame]) -> Iterator[tuple[int, Frame]]:
    return zip(repeat(0), frames, strict=False)


def shortfall(sampling: Sampling, found: int, info: VideoInfo, *, is_damaged: bool) -> str | None:
    """Return the remark that fewer frames of a video were looked at than were asked for; None if there were enough.

    `info` has the measured length; a still picture has none, and is not asked for more than itself.
    """
    if sampling.choice == "all" or found >= sampling.asked or info.duration_seconds is None:
        return None
    if found == 1 and info.codec in STILL_CODECS:
        return None
    frames = info.duration_seconds / info.frame_seconds
    if sampling.choice == "first" or found >= round(frames) - 1:
        cause = "it has no more"
    elif is_damaged:
        cause = "the others could not be decoded"
    else:
        cause = "several of the chosen times fall on one frame"
    parts = f" ({sampling.count} windows of {sampling.window_frames})" if sampling.choice == "windows" else ""
    return f"looked at {found} of the {sampling.asked} frames asked for{parts}: {cause}"
