"""Videos to measure with: the example portrait, scaled and encoded with H.264, of any size and length."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

EXAMPLES = Path(__file__).parent.parent / "examples"
PORTRAIT = EXAMPLES / "astronaut_h264.mp4"
RATE = 25
SIZES = {"360p": (640, 360), "1080p": (1920, 1080)}


def encode(path: Path, pictures: Iterable[av.VideoFrame], codec: str, options: dict[str, str]) -> Path:
    """Encode pictures of one size, 25 a second, in 4:2:0."""
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream(codec, rate=RATE, options=options)
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if not number:
                stream.width, stream.height = picture.width, picture.height
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def make_video(path: Path, size: tuple[int, int], frames: int) -> Path:
    """Encode the example portrait, back and forth, as `frames` frames of H.264 at `size` (width, height)."""
    with av.open(str(PORTRAIT)) as source:
        pictures = [frame.reformat(*size, "yuv420p", interpolation="BICUBIC") for frame in source.decode(video=0)]
    there_and_back = itertools.cycle([*pictures, *reversed(pictures)])
    return encode(path, itertools.islice(there_and_back, frames), "libx264", {"preset": "fast", "crf": "23"})


def copies(video: Path, folder: Path, count: int) -> Path:
    """Fill a folder with copies of a video."""
    folder.mkdir()
    for number in range(count):
        shutil.copy(video, folder / f"{number:04}.mp4")
    return folder
