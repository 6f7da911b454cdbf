"""Real encoded videos for tests, made on the spot with PyAV, and real faces from the project's examples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation
from numpy.typing import NDArray

from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.system.regular_files import open_regular_file

EXAMPLES = Path(__file__).parent.parent / "examples"
ASTRONAUT = EXAMPLES / "astronaut_h264.mp4"
TWO_FACES = EXAMPLES / "two_faces_vp9.webm"
NO_FACE = EXAMPLES / "no_face_mpeg4.avi"
PHONE = EXAMPLES / "phone_portrait_hevc.mp4"
SWAPPED = EXAMPLES / "swapped_face_av1.mp4"
TIME_BASE = Fraction(1, 1000)
QUIET_OPTIONS = {"libx265": {"x265-params": "log-level=none"}}
os.environ.setdefault("SVT_LOG", "1")  # errors only
ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@cache
def example_frames(path: Path, count: int) -> tuple[NDArray[np.uint8], ...]:
    """Return the first frames of an example as RGB [H, W, 3], as decoded (not turned upright)."""
    with av.open(str(path)) as container:
        frames = []
        for frame in container.decode(video=0):
            frames.append(np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
            if len(frames) == count:
                break
    return tuple(frames)


def portrait(width: int = 640, height: int = 360) -> NDArray[np.uint8]:
    """Return a picture with one real face, RGB [height, width, 3]."""
    frame = av.VideoFrame.from_ndarray(example_frames(ASTRONAUT, 1)[0], format="rgb24")
    return np.asarray(frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray(), dtype=np.uint8)


def flat(color: Sequence[int], width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a picture of one color, RGB [height, width, 3]."""
    return np.full((height, width, 3), color, dtype=np.uint8)


def write_video(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: Sequence[float] | None = None,
    rate: int = 25,
    matrix: int = 1,
    full_range: bool = False,
    options: dict[str, str] | None = None,
    rotation: float = 0.0,
    flip: bool = False,
    display_matrix: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    time_base: Fraction = TIME_BASE,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB pictures [H, W, 3] of one size; the container is that of the path's ending.

    `times` gives each picture's presentation time in seconds (default: `rate` per second). `matrix` is the H.273 code
    point of the color matrix; both it and the range are really applied and declared. `rotation` in degrees,
    counter-clockwise, and `flip` (left to right) go into the display matrix, or give all nine numbers of it.
    MPEG-2, MPEG-4 and AVI need a `time_base` of 1 / `rate`.
    """
    color_range = ColorRange.JPEG if full_range else ColorRange.MPEG
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(
                    codec, rate=rate, options={**QUIET_OPTIONS.get(codec, {}), **(options or {})}
                )
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], pixel_format
                stream.time_base = stream.codec_context.time_base = time_base
                stream.codec_context.thread_count = 1
                stream.codec_context.colorspace, stream.codec_context.color_range = matrix, int(color_range)
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                if rotation or flip:
                    stream.set_display_rotation(rotation, hflip=flip)
                if display_matrix is not None:
                    stream.set_display_matrix(display_matrix)
            rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = rgb.reformat(
                format=pixel_format, dst_colorspace=matrix, dst_color_range=int(color_range), interpolation=ACCURATE
            )
            frame.colorspace, frame.color_range = matrix, int(color_range)
            seconds = number / rate if times is None else times[number]
            frame.pts, frame.time_base = round(seconds / time_base), time_base
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


QUADRANTS = ((200, 60, 50), (50, 170, 70), (60, 70, 190), (200, 190, 60))


def quadrants(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a picture of four colors, `QUADRANTS` in reading order, RGB [height, width, 3]."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    for number, color in enumerate(QUADRANTS):
        rows = slice(height // 2) if number < 2 else slice(height // 2, None)
        picture[rows, slice(width // 2) if number % 2 == 0 else slice(width // 2, None)] = color
    return picture


def counting(count: int, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    """Return gray pictures that `number_of` tells apart, at most 50."""
    return [flat([20 + 4 * number] * 3, width, height) for number in range(count)]


def number_of(picture: NDArray[np.uint8]) -> int:
    """Tell which of the `counting` pictures this is."""
    return round((float(picture.mean()) - 20) / 4)


def noise(count: int, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    """Return pictures that no codec makes small: every frame gets its share of the file."""
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, size=(count, height, width, 3), dtype=np.uint8))


def whole_rgb(frame: Frame) -> NDArray[np.uint8]:
    """Return the picture of a frame in RGB as FFmpeg converts it, not turned upright."""
    color = frame.picture.color
    return np.asarray(
        frame.native.reformat(
            format="rgb24",
            src_colorspace=color.matrix,
            src_color_range=2 if color.full_range else 1,
            dst_color_range=2,
            interpolation=ACCURATE,
        ).to_ndarray(),
        dtype=np.uint8,
    )


def open_video(path: str, *, threads: int, **options: Any) -> PyAVReader:
    """Open a video by FFmpeg, whatever its first bytes look like."""
    file = open_regular_file(path)
    try:
        return PyAVReader(path, file, threads=threads, **options)
    except BaseException:
        file.close()
        raise
