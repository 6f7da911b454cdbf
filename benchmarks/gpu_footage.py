"""Videos for the benchmark of GPUs: faces that move, made once and kept, as many files of them as are asked for."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.footage import PORTRAIT, SIZES, encode

Codec = Literal["h264", "hevc"]

ENCODERS: Final[dict[Codec, tuple[str, dict[str, str]]]] = {
    "h264": ("libx264", {"preset": "veryfast", "crf": "23"}),
    "hevc": ("libx265", {"preset": "veryfast", "crf": "26", "x265-params": "log-level=none"}),
}
# Videos that differ, so that a score that belongs to another file is noticed.
DIFFERENT: Final = 4
# How far the picture drifts, as a part of its side, and how long one turn of that takes, in frames.
DRIFT: Final = 0.06
TURNS: Final = (97, 71)
# Standard deviation of the noise that stands for a sensor's, in levels; without it codecs skip most blocks.
NOISE: Final = 2.0


@dataclass(frozen=True)
class Footage:
    """Some videos that differ, of one size, codec and length.

    Attributes:
        size: a key of `SIZES`.
        codec: of all of them.
        videos: the files.
        frames: of each.
    """

    size: str
    codec: Codec
    videos: tuple[Path, ...]
    frames: int

    def files(self, count: int) -> list[Path]:
        """Return as many files as asked for, which are the videos in turns, linked under names of their own.

        To a decoder, equal files are as much work as different ones.
        """
        folder = self.videos[0].with_name(f"{self.size}-{self.codec}-{self.frames}-files")
        folder.mkdir(exist_ok=True)
        links = [folder / f"{number:05}.mp4" for number in range(count)]
        for link, video in zip(links, itertools.cycle(self.videos), strict=False):
            if not link.exists():
                try:
                    os.link(video, link)
                except OSError:  # the file system has no hard links
                    shutil.copy(video, link)
        return links


def make_footage(folder: Path, *, size: str, codec: Codec, frames: int) -> Footage:
    """Encode the videos that the folder does not have yet, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    videos = tuple(folder / f"{size}-{codec}-{frames}-{number}.mp4" for number in range(DIFFERENT))
    missing = [number for number, video in enumerate(videos) if not video.exists()]

    def make(number: int) -> None:
        unfinished = folder / f"unfinished-{os.getpid()}-{number}.mp4"
        moving_video(unfinished, SIZES[size], codec, frames, seed=number).replace(videos[number])

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, missing))
    return Footage(size, codec, videos, frames)


def moving_video(path: Path, size: tuple[int, int], codec: Codec, frames: int, *, seed: int = 0) -> Path:
    """Encode the example portrait at `size` (width, height), drifting and with noise."""
    pictures = itertools.islice(_moving_pictures(size, seed), frames)
    return encode(path, (av.VideoFrame.from_ndarray(picture, format="bgr24") for picture in pictures), *ENCODERS[codec])


def _moving_pictures(size: tuple[int, int], seed: int) -> Iterator[NDArray[np.uint8]]:
    """Yield BGR pictures [h, w, 3] without end; with another seed they begin elsewhere, with other noise."""
    with av.open(str(PORTRAIT)) as source:
        pictures = [frame.reformat(*size, "bgr24").to_ndarray() for frame in source.decode(video=0)]
    draws = np.random.default_rng(seed)
    # One field of noise, moved about: new noise for every frame would take longer than encoding it.
    noise = draws.normal(0.0, NOISE, (size[1], size[0], 3)).round().astype(np.int16)
    there_and_back = [*pictures, *reversed(pictures)]
    start = seed * len(there_and_back) // DIFFERENT
    for number, picture in enumerate(itertools.islice(itertools.cycle(there_and_back), start, None), start):
        across, down = (math.sin(2 * math.pi * number / turn) * DRIFT for turn in TURNS)
        matrix = np.array([[1.0, 0.0, across * size[0]], [0.0, 1.0, down * size[1]]])
        moved = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REFLECT)
        rolled = np.roll(noise, tuple(draws.integers(0, size[::-1]).tolist()), axis=(0, 1))
        yield cv2.add(moved, rolled, dtype=cv2.CV_8U).astype(np.uint8, copy=False)
