"""Videos for the benchmark of GPUs: faces that move, in H.264 and HEVC, many short files and a few long ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.footage import PORTRAIT, RATE, SIZES, copies

Codec = Literal["h264", "hevc"]
Shape = Literal["short", "long"]

ENCODERS: Final[dict[Codec, tuple[str, dict[str, str]]]] = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "23"}),
    "hevc": ("libx265", {"preset": "veryfast", "crf": "26", "x265-params": "log-level=none"}),
}
# How far the picture drifts, as a part of its side, and how long one turn of that takes, in frames.
DRIFT: Final = 0.06
TURNS: Final = (97, 71)
# Standard deviation of the noise that stands for a sensor's, in levels; without it codecs skip most blocks.
NOISE: Final = 2.0
SEED: Final = 0


@dataclass(frozen=True)
class Footage:
    """A folder of equal videos.

    Attributes:
        size: a key of `SIZES`.
        codec: of all of them.
        shape: many short ones, or a few long ones.
        folder: where they are.
        files: how many.
        frames_each: of one file.
    """

    size: str
    codec: Codec
    shape: Shape
    folder: Path
    files: int
    frames_each: int

    @property
    def title(self) -> str:
        """Title of the footage in the report."""
        return f"{self.size} {self.codec}, {self.files} x {self.frames_each} frames"

    def paths(self) -> list[Path]:
        """Return the files."""
        return sorted(self.folder.iterdir())


def make_footage(folder: Path, *, size: str, codec: Codec, shape: Shape, files: int, frames_each: int) -> Footage:
    """Encode one video, and copy it: to a decoder, equal files are as much work as different ones."""
    video = moving_video(folder / f"{size}-{codec}-{shape}.mp4", SIZES[size], codec, frames_each)
    filled = copies(video, folder / f"{size}-{codec}-{shape}", files)
    return Footage(size, codec, shape, filled, files, frames_each)


def moving_video(path: Path, size: tuple[int, int], codec: Codec, frames: int) -> Path:
    """Encode the example portrait at `size` (width, height), drifting and with noise."""
    name, options = ENCODERS[codec]
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream(name, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, picture in enumerate(itertools.islice(_moving_pictures(size), frames)):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def _moving_pictures(size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Yield BGR pictures [h, w, 3] without end."""
    with av.open(str(PORTRAIT)) as source:
        pictures = [frame.reformat(*size, "bgr24").to_ndarray() for frame in source.decode(video=0)]
    draws = np.random.default_rng(SEED)
    # One field of noise, moved about: new noise for every frame would take longer than encoding it.
    noise = draws.normal(0.0, NOISE, (size[1], size[0], 3)).round().astype(np.int16)
    for number, picture in enumerate(itertools.cycle([*pictures, *reversed(pictures)])):
        across, down = (math.sin(2 * math.pi * number / turn) * DRIFT for turn in TURNS)
        matrix = np.array([[1.0, 0.0, across * size[0]], [0.0, 1.0, down * size[1]]])
        moved = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REFLECT)
        rolled = np.roll(noise, tuple(draws.integers(0, size[::-1]).tolist()), axis=(0, 1))
        yield cv2.add(moved, rolled, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
