"""Animated WebP pictures as videos: Pillow composes one frame after the other, on demand.

GIF, animated PNG and sequences in AVIF and HEIC files are read by FFmpeg, which has no decoder for animated WebP.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from PIL.WebPImagePlugin import WebPImageFile

from deepscan.errors import UnreadableInput
from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.media.frames import Frame, VideoInfo
from deepscan.runtime.media.picture_reader import check_size, decoding, frame_of, shrunk_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIND: Final = "webp"
ANIMATION_FLAG: Final = 2
# Browsers show frames of 10 ms and less for 100 ms, as old programs wrote such numbers for no reason.
SHORTEST_MILLISECONDS: Final = 11
USUAL_MILLISECONDS: Final = 100
ROUNDING_SECONDS: Final = 1e-6
# More than the default limit of frames; further ones are not read.
MOST_CHUNKS: Final = 1 << 22


def is_animated_webp(head: bytes) -> bool:
    """Tell by the first bytes of a WebP file whether it says that it is animated."""
    return head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & ANIMATION_FLAG)


def open_animation(file: BinaryIO, *, limits: Limits = DEFAULT_LIMITS) -> AnimationReader | None:
    """Open an animated WebP file, which is kept in memory as it is; None if it has one frame only.

    Args:
        file: at any position; not needed afterwards.
        limits: the limit on pixels.

    Raises:
        OverLimit: it has too many pixels.
        UnreadableInput: it is damaged or cut short.
        UnsupportedInput: it exceeds Pillow's own limit.
    """
    with decoding(KIND):
        durations = _durations(file)
        file.seek(24)
        size = file.read(6)
        file.seek(0)
    if len(durations) < 2:
        return None
    limits.check_pixels(int.from_bytes(size[:3], "little") + 1, int.from_bytes(size[3:], "little") + 1)
    with decoding(KIND):
        image = WebPImageFile(file)
        check_size(image, limits)
    return AnimationReader(image, durations[: image.n_frames])


class AnimationReader:
    """An open animation; see `deepscan.runtime.media.frames.Reader` for the contract.

    Args:
        image: an open WebP file of several frames.
        durations: how long each of them is shown, in seconds.
    """

    def __init__(self, image: WebPImageFile, durations: Sequence[float]) -> None:
        self._image = image
        self._starts = [0.0, *accumulate(durations[:-1])]
        self._failed: int | None = None
        self._first = self._frame(0)
        self.info = VideoInfo(
            codec=KIND,
            width=self._first.geometry.width,
            height=self._first.geometry.height,
            duration_seconds=sum(durations),
            frame_seconds=sum(durations) / len(durations),
        )

    def frames(self) -> Iterator[Frame]:
        """Yield every frame."""
        return self._frames(0)

    def frames_at(self, seconds: Sequence[float], *, tolerance_seconds: float) -> Iterator[Frame]:  # noqa: ARG002
        """Yield the frame that is shown at each of the ascending times; no frame is a key frame."""
        latest, yielded = -1, False
        for target in seconds:
            number = self._shown_at(target)
            if number > latest:
                for frame in islice(self._frames(number), 1):
                    yielded = True
                    yield frame
                latest = number
        if not yielded:  # All times lie where the file is damaged.
            yield self._first

    def windows(
        self,
        starts: Sequence[float],
        frames_each: int,
        *,
        tolerance_seconds: float,  # noqa: ARG002
    ) -> Iterator[tuple[int, Frame]]:
        """Yield windows of consecutive frames, each frame with its window's number."""
        free, yielded = 0, False
        for window, start in enumerate(starts):
            first = max(free, self._shown_at(start))
            for frame in islice(self._frames(first), frames_each):
                free, yielded = frame.index + 1, True
                yield window, frame
        if not yielded:
            yield 0, self._first

    def duration_seconds(self) -> float:
        """Return how long the animation is shown once."""
        return self.info.duration_seconds or self.info.frame_seconds

    def shrink(self, frame: Frame, longest_side: int) -> NDArray[np.uint8]:
        """Return the upright picture as BGR [h, w, 3], scaled down so that its longer side fits; area filter."""
        return shrunk_picture(frame, longest_side)

    def warnings(self) -> str | None:
        """See `Reader.warnings`."""
        if self._failed is None:
            return None
        return f"only the first {self._failed} of {len(self._starts)} frames could be decoded"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file's content and the decoder."""
        self._image.close()
        del self._image

    def _shown_at(self, seconds: float) -> int:
        return max(0, bisect_right(self._starts, seconds + ROUNDING_SECONDS) - 1)

    def _frames(self, first: int) -> Iterator[Frame]:
        """Yield frames up to the end, or to where the file is damaged."""
        for number in range(first, len(self._starts)):
            try:
                yield self._first if number == 0 else self._frame(number)
            except UnreadableInput:
                self._failed = min(number, self._failed or number)
                return

    def _frame(self, number: int) -> Frame:
        with decoding(KIND):
            self._image.seek(number)
            self._image.load()
            return frame_of(self._image, KIND, index=number, seconds=self._starts[number])


def _durations(file: BinaryIO) -> list[float]:
    """Return how long each frame is shown, in seconds, by the chunks' headers (WebP container specification)."""
    file.seek(12)
    durations: list[float] = []
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        size += size % 2
        if head[:4] == b"ANMF":
            milliseconds = int.from_bytes(file.read(16)[12:15], "little")
            durations.append((milliseconds if milliseconds >= SHORTEST_MILLISECONDS else USUAL_MILLISECONDS) / 1000)
            size = max(0, size - 16)
        file.seek(size, os.SEEK_CUR)
    return durations
