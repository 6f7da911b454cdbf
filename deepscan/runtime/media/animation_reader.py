"""Animated WebP pictures as videos: Pillow composes one frame after the other, on demand.

GIF, animated PNG and sequences in AVIF and HEIC files are read by FFmpeg, which has no decoder for animated WebP.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Final

from PIL.WebPImagePlugin import WebPImageFile

from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.runtime.media.picture_reader import PictureReader, check_size, decoding, frame_of

KIND: Final = "webp"
ANIMATION_FLAG: Final = 2
# Browsers show frames of 10 ms and less for 100 ms, as old programs wrote such numbers for no reason.
SHORTEST_MILLISECONDS: Final = 11
USUAL_MILLISECONDS: Final = 100
# More than the default limit of frames; further ones are not read.
MOST_CHUNKS: Final = 1 << 22


def is_animated_webp(head: bytes) -> bool:
    """Tell by the first bytes of a WebP file whether it says that it is animated."""
    return head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & ANIMATION_FLAG)


def open_animation(file: BinaryIO, *, limits: Limits = DEFAULT_LIMITS) -> PictureReader | None:
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
        first = frame_of(image, KIND)
    return PictureReader(first, codec=KIND, animation=image, durations=durations[: image.n_frames])


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
