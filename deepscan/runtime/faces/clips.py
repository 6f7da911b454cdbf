"""Clips: which frames of a track make one.

A track shorter than a clip is mirrored at both ends, as the authors do (AltFreezing: demo.py:117-133): frame -1 is
frame 1, frame L is frame L - 2, and so on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

T = TypeVar("T")


def mirrored_clip(length: int, frames: int) -> list[int]:
    """Return `frames` indices into a shorter track, with the track in their middle."""
    before = (frames - length) // 2
    indices: list[int] = np.pad(np.arange(length), (before, frames - length - before), "reflect").tolist()
    return indices


def paper_windows(length: int, frames: int, stride: int) -> list[list[int]]:
    """Return the clips of a track as the authors make them: each a list of `frames` indices.

    A shorter track gets `frames - 1` mirrored frames on both sides and then every window of that, so `length` +
    `frames` - 1 clips. (FTCN's own code stops with an assertion where the length is 8 or less.)
    """
    indices = np.arange(length) if length >= frames else np.pad(np.arange(length), frames - 1, "reflect")
    windows: list[list[int]] = sliding_window_view(indices, frames)[::stride].tolist()
    return windows


class ClipAssembler(Generic[T]):
    """Joins the crops of one track to clips, one after the other.

    Where the number of consecutive crops is no multiple of a clip's, the last clip reaches back into the one before,
    so that it too is a real stretch of video. Fewer crops than a clip's are mirrored, fewer than `min_frames` dropped.
    """

    def __init__(self, frames: int, min_frames: int) -> None:
        self._frames = frames
        self._min_frames = min_frames
        self._latest: deque[T] = deque(maxlen=frames)
        self._length = self._waiting = 0
        self._position: int | None = None
        self.longest_dropped = 0

    def add(self, position: int, crop: T) -> Iterator[list[T]]:
        """Take a crop; a position that does not follow the last one begins a new stretch."""
        if self._position is not None and position != self._position + 1:
            yield from self.finish()
        self._position = position
        self._latest.append(crop)
        self._length += 1
        self._waiting += 1
        if self._waiting == self._frames:
            self._waiting = 0
            yield list(self._latest)

    def finish(self) -> Iterator[list[T]]:
        """End the stretch."""
        if self._waiting and self._length >= self._frames:
            yield list(self._latest)
        elif self._length and self._length < self._min_frames:
            self.longest_dropped = max(self.longest_dropped, self._length)
        elif self._waiting:
            stretch = list(self._latest)
            yield [stretch[index] for index in mirrored_clip(self._length, self._frames)]
        self._latest.clear()
        self._length = self._waiting = 0
        self._position = None
