"""Finding single frames, or stretches of them, in a stream of frames that can be made to jump forward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Final, Protocol

from deepscan.runtime.media.frames import Frame

# Files round times to a millisecond, or to whatever their tick is.
ROUNDING_SECONDS: Final = 0.002
MOST_ROUNDING: Final = 0.25  # of a frame
DENSE_FRAMES: Final = 1.25


class FrameSource(Protocol):
    """A video that can be decoded from several places."""

    def decode(self) -> Iterator[Frame]:
        """Yield the frames from where it stands to the end, in the order of time."""

    def jump(self, target: float, reached: float) -> bool:
        """Go to the last key frame up to `target`, if it lies behind `reached`; tell whether it did."""

    def rewind(self) -> bool:
        """Go to the start; tell whether that is possible."""


def frames_near(
    source: FrameSource,
    seconds: Sequence[float],
    *,
    tolerance_seconds: float,
    frame_seconds: float,
    end_seconds: float = 0.0,
) -> Iterator[Frame]:
    """Yield one frame for each of the ascending times: the first one from half a frame before it on.

    A key frame at most `tolerance_seconds` earlier may stand in for it. Fewer frames come where several times fall on
    one frame or lie behind the last one; one comes in any case, if the video has any. The last frame lasts for
    `frame_seconds`, or until `end_seconds`, if that is known.
    """
    half_frame = frame_seconds / 2
    # Where nearly every frame is requested, one that is taken for its neighbor would be missing at the end.
    dense = any(after - before < DENSE_FRAMES * frame_seconds for before, after in pairwise(seconds))
    rounding = min(ROUNDING_SECONDS, MOST_ROUNDING * frame_seconds) if dense else 0.0
    frames = source.decode()
    latest: Frame | None = None
    reached = taken = -math.inf
    for target in seconds:
        if target <= reached + half_frame - rounding:
            continue
        if source.jump(target, reached):
            frames = source.decode()
        for latest in frames:
            if latest.pts_seconds <= reached:  # The jump went further back than the index promised.
                continue
            slack = half_frame + rounding
            if latest.key_frame:
                slack = max(tolerance_seconds, slack)
            if latest.pts_seconds >= target - slack:
                taken = latest.pts_seconds
                yield latest
                break
        else:
            if (
                latest is not None
                and taken < latest.pts_seconds
                and target < max(latest.pts_seconds + frame_seconds, end_seconds)
            ):
                taken = latest.pts_seconds
                yield latest
        if latest is not None:
            reached = max(reached, latest.pts_seconds)
    if latest is None and source.rewind():  # All times lie where the file is cut off.
        latest = next(source.decode(), None)
    if latest is not None and taken == -math.inf:
        yield latest


def windows_near(
    source: FrameSource, starts: Sequence[float], frames_each: int, *, tolerance_seconds: float, frame_seconds: float
) -> Iterator[tuple[int, Frame]]:
    """Yield stretches of consecutive frames from the ascending times on, each with the number of its stretch.

    They share no frame. Where all of them lie behind the end, the first frames of the video stand in for the first.
    """
    half_frame = frame_seconds / 2
    frames = source.decode()
    latest: Frame | None = None
    reached, yielded = -math.inf, False
    for number, target in enumerate(starts):
        if source.jump(target, reached):
            frames = source.decode()
        taken = 0
        for latest in frames:
            slack = max(tolerance_seconds, half_frame) if latest.key_frame else half_frame
            if latest.pts_seconds <= reached or (not taken and latest.pts_seconds < target - slack):
                continue
            yielded = True
            yield number, latest
            taken += 1
            if taken == frames_each:
                break
        if latest is not None:
            reached = max(reached, latest.pts_seconds)
    if not yielded and source.rewind():
        for frame in islice(source.decode(), frames_each):
            yielded = True
            yield 0, frame
    if not yielded and latest is not None:  # And there is no way back.
        yield 0, latest
