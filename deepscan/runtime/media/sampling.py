"""Which frames of a video are scored, and which of those are searched for faces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from deepscan.runtime.media.frames import Frame, Reader, VideoInfo
from deepscan.runtime.media.shots import is_cut, luma_signature
from deepscan.runtime.media.video_limits import LengthLimit

# Boxes are interpolated over no longer than this, whatever the frame rate and however rarely faces are searched.
LONGEST_LOOK_GAP_SECONDS = 0.5

# Files of these with a single picture are still pictures.
STILL_CODECS: Final = frozenset(["apng", "gif", "webp", "png", "mjpeg"])

Choice = Literal["all", "first", "middles", "ends", "windows"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much of each video is looked at.

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
        """Tell whether more frames are wanted of a video that has them."""
        return self.choice == "all" or self.count * max(1, self.window_frames) > frames


@dataclass(frozen=True, slots=True, eq=False)
class SampledFrame:
    """A frame to score, and the number of its window."""

    frame: Frame
    window: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class MarkedFrame:
    """A frame, whether to search it for faces, and where it stands.

    Attributes:
        position: one more than the frame's before it, if they follow each other in the video.
        continues: a shot starts in the midst of a flash or of a transition, so that tracks may go on in it: faces in
            one place are the same there.
    """

    frame: Frame
    search: bool
    starts_shot: bool
    position: int
    continues: bool = False


def sampled_frames(reader: Reader, sampling: Sampling, length: LengthLimit | None = None) -> Iterator[SampledFrame]:
    """Yield the frames to score, in the order of time.

    Args:
        reader: the video.
        sampling: which of its frames.
        length: how many at most, and up to when; knows afterwards what was cut. None: the limits that hold by default.

    Raises:
        InputError: the video cannot be decoded, or is over a limit.
    """
    length = length or LengthLimit()
    length.check_length(reader)
    for sampled in _sampled(reader, sampling, length):
        if length.ends_before(sampled.frame.seconds):
            return
        yield sampled


def _sampled(reader: Reader, sampling: Sampling, length: LengthLimit) -> Iterator[SampledFrame]:
    if sampling.choice == "all":
        yield from map(SampledFrame, reader.frames())
    elif sampling.choice == "first":
        yield from map(SampledFrame, islice(reader.frames(), sampling.count))
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
        yield from map(SampledFrame, frames)


def _windows(reader: Reader, sampling: Sampling, limit: LengthLimit) -> Iterator[SampledFrame]:
    """Yield windows spread over the video; all its frames, as one, where they would come to touch."""
    part = limit.most_seconds(reader.duration_seconds()) / sampling.count
    length = sampling.window_frames * reader.info.frame_seconds
    if part <= length:
        yield from map(SampledFrame, reader.frames())
        return
    starts = [part * number + (part - length) / 2 for number in range(sampling.count)]
    # A key frame may begin a window early, as long as it stays in its own part.
    found = reader.windows(starts, sampling.window_frames, tolerance_seconds=(part - length) / 2)
    for window, frame in found:
        yield SampledFrame(frame, window)


def shortfall(sampling: Sampling, found: int, info: VideoInfo, *, is_damaged: bool) -> str | None:
    """Say that fewer frames of a video were looked at than were asked for, and why; None where there were enough.

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


def marked_frames(frames: Iterable[SampledFrame], sampling: Sampling) -> Iterator[MarkedFrame]:
    """Say which of the sampled frames to search for faces, and where shots begin.

    Where frames follow each other, every n-th frame of a shot is searched, more where half a second passes without,
    and the first and the last of a shot or window: so every other frame lies between two searched ones of its own.
    This runs one frame behind the decoder. Of single frames every one is searched, and cuts are not looked for:
    frames seconds apart differ without one. Where files were joined, or the size changes, there is one in any case.

    A frame between two cuts is hardly a shot, but a flash, part of a fade, or a blend of two shots. Where the picture
    is the same again after it, nothing has ended; else it belongs to the shot that follows.
    """
    held: SampledFrame | None = None
    held_signature = before_shot = None
    continues = after_cut = False
    in_shot = since_search = position = 0
    searched = -math.inf
    for sampled in frames:
        frame = sampled.frame
        signature = None if sampling.sparse else luma_signature(frame.picture)
        if held is not None:
            before = held.frame
            joined = before.geometry != frame.geometry or before.part != frame.part
            cut = joined
            if held_signature is not None and signature is not None and held.window == sampled.window:
                cut = cut or is_cut(held_signature, signature)
            ends = cut or held.window != sampled.window
            due = since_search % sampling.detect_every == 0 or frame.seconds - searched > LONGEST_LOOK_GAP_SECONDS
            search = ends or due or sampling.sparse
            # One frame between two cuts.
            lone = cut and after_cut and not joined
            resumes = lone and before_shot is not None and signature is not None and not is_cut(before_shot, signature)
            yield MarkedFrame(before, search, in_shot == 0, position, continues=continues or resumes)
            if search:
                since_search, searched = 0, before.seconds
            since_search = 0 if ends else since_search + 1
            in_shot = 0 if cut else in_shot + 1
            position += 2 if held.window != sampled.window else 1
            continues, after_cut = lone, cut and not joined
            before_shot = held_signature if cut else None
        held, held_signature = sampled, signature
    if held is not None:
        yield MarkedFrame(held.frame, True, in_shot == 0, position, continues=continues)
