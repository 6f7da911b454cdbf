"""Videos to measure with: the example portrait, scaled and encoded with H.264, of any size and length."""

from __future__ import annotations

import itertools
import shutil
from fractions import Fraction
from pathlib import Path

import av

EXAMPLES = Path(__file__).parent.parent / "examples"
PORTRAIT = EXAMPLES / "astronaut_h264.mp4"
RATE = 25
SIZES = {"360p": (640, 360), "1080p": (1920, 1080)}


def make_video(path: Path, size: tuple[int, int], frames: int) -> Path:
    """Encode the example portrait, back and forth, as `frames` frames of H.264 at `size` (width, height)."""
    with av.open(str(PORTRAIT)) as source:
        pictures = [frame.reformat(*size, "yuv420p", interpolation="BICUBIC") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=RATE, options={"preset": "fast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        there_and_back = itertools.cycle([*pictures, *reversed(pictures)])
        for number, picture in enumerate(itertools.islice(there_and_back, frames)):
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def copies(video: Path, folder: Path, count: int) -> Path:
    """Fill a folder with copies of a video."""
    folder.mkdir()
    for number in range(count):
        shutil.copy(video, folder / f"{number:04}.mp4")
    return folder
