"""Which frames of a video are scored, and which of those are searched for faces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Final, Literal

from deepscan.runtime.media.frames import Frame, Reader, VideoInfo
from deepscan.runtime.media.video_limits import LengthLimit

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
        window_frames: frames of a window; unused without windows.
        nearby: key frames that lie well may stand in for the exact frames: cheaper where a file has many.
        detect_every: at least 1; where frames follow each other, every how many of them faces are searched for; boxes
            between them are interpolated.
        twice: every frame is searched in a first pass over the video, and cropped in a second.
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

    def asks_for_more_than(self, frames: int) -> bool:
        """Tell whether more frames are asked for, if the video has them."""
        return self.choice == "all" or self.count * max(1, self.window_frames) > frames


def sampled_frames(
    reader: Reader, sampling: Sampling, length: LengthLimit | None = None
) -> Iterator[tuple[int, Frame]]:
    """Yield the frames to score in the order of time, each with the number of its window.

    Args:
        reader: the video.
        sampling: which of its frames.
        length: how many frames at most, and up to when; knows afterwards what was left out. By default, the usual
            limits.

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

    Args:
        sampling: what was asked for.
        found: how many frames there were.
        info: of the video, with its measured length; a still picture has none, and is not asked for more than itself.
        is_damaged: there is damage to tell of.
    """
    windows = sampling.choice == "windows"
    asked = sampling.count * (sampling.window_frames if windows else 1)
    if sampling.choice == "all" or found >= asked or info.duration_seconds is None:
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
    parts = f" ({sampling.count} windows of {sampling.window_frames})" if windows else ""
    return f"looked at {found} of the {asked} frames asked for{parts}: {cause}"
