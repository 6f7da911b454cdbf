"""Real encoded videos for tests, made on the spot with PyAV, and real faces from the project's examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples"
ASTRONAUT = EXAMPLES / "astronaut_h264.mp4"
TWO_FACES = EXAMPLES / "two_faces_vp9.webm"
NO_FACE = EXAMPLES / "no_face_mpeg4.avi"
PHONE = EXAMPLES / "phone_portrait_hevc.mp4"
SWAPPED = EXAMPLES / "swapped_face_av1.mp4"
TIME_BASE = Fraction(1, 1000)
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


def flat(colour: Sequence[int], width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a picture of one colour, RGB [height, width, 3]."""
    return np.full((height, width, 3), colour, dtype=np.uint8)


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
    aspect: Fraction | None = None,
) -> Path:
    """Encode RGB pictures [H, W, 3] of one size; the container is that of the path's ending.

    `times` gives each picture's presentation time in seconds (default: `rate` per second). `matrix` is the H.273 code
    point of the colour matrix; both it and the range are really applied and declared. `rotation` in degrees,
    counter-clockwise, and `flip` (left to right) go into the display matrix.
    """
    colour_range = ColorRange.JPEG if full_range else ColorRange.MPEG
    with av.open(str(path), "w") as container:
        stream: Any = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options or {})
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], pixel_format
                stream.time_base = stream.codec_context.time_base = TIME_BASE
                stream.codec_context.thread_count = 1
                stream.codec_context.colorspace, stream.codec_context.color_range = matrix, int(colour_range)
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
                if rotation or flip:
                    stream.set_display_rotation(rotation, hflip=flip)
            rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = rgb.reformat(
                format=pixel_format, dst_colorspace=matrix, dst_color_range=int(colour_range), interpolation=ACCURATE
            )
            frame.colorspace, frame.color_range = matrix, int(colour_range)
            seconds = number / rate if times is None else times[number]
            frame.pts, frame.time_base = round(seconds / TIME_BASE), TIME_BASE
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
