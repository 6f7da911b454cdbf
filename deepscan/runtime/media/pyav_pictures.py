"""From PyAV's frames to `Picture`: planes without a copy, color, orientation; and the small picture for faces."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from deepscan.runtime.media.color import BT709, declared_color
from deepscan.runtime.media.frames import Orientation, Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.media.color import Color
    from deepscan.runtime.media.frames import Frame, Geometry

PLANAR_YUV = re.compile(r"yuv(?P<jpeg>j?)a?(?P<subsampling>4\d\d)p(?P<bits>\d+)?(le)?")
GRAY = re.compile(r"gray(?P<bits>\d+)?(le)?")
# What every other layout (RGB, palettes, packed and semi-planar YUV) is converted to, without losing chroma samples.
FALLBACK_FORMAT = "yuv444p"
FULL_RANGE = int(ColorRange.JPEG)
TINY_SIDE = 16


# FFmpeg's rotation, in quarter turns counter-clockwise.
QUARTER_TURNS = (
    Orientation(),
    Orientation(transpose=True, flip_y=True),
    Orientation(flip_x=True, flip_y=True),
    Orientation(transpose=True, flip_x=True),
)


def picture_from_av(native: av.VideoFrame, *, left_chroma: bool) -> tuple[Picture, av.VideoFrame]:
    """Wrap a decoded frame's planes, which stay where the decoder put them; also return the frame that they are in.

    That is another frame where the decoder's layout is a rare one.
    """
    layout = PLANAR_YUV.fullmatch(native.format.name) or GRAY.fullmatch(native.format.name)
    if layout is None:
        native = _reformatted(native)
        layout = PLANAR_YUV.fullmatch(FALLBACK_FORMAT)
        assert layout is not None
    parts = layout.groupdict()
    gray = "subsampling" not in parts
    picture = Picture(
        planes=tuple(_plane(native, number, parts["bits"]) for number in range(1 if gray else 3)),
        bit_depth=int(parts["bits"] or 8),
        color=color_from_av(native, full_range=gray or parts["jpeg"] == "j"),
        left_chroma=left_chroma,
    )
    return picture, native


def color_from_av(native: av.VideoFrame, *, full_range: bool = False) -> Color:
    """Return what the numbers of a decoded frame mean.

    Args:
        native: on a device or not.
        full_range: its layout says so, whatever the frame declares.
    """
    return declared_color(
        matrix=native.colorspace,
        full_range=full_range or native.color_range == FULL_RANGE,
        width=native.width,
        height=native.height,
        transfer=native.color_trc,
        primaries=native.color_primaries,
    )


def orientation_from_av(native: av.VideoFrame) -> Orientation:
    """Return how the file wants a decoded frame turned.

    PyAV's side data and their frame refer to each other: whoever asks keeps that frame alive until Python's next
    garbage collection. So a tiny copy is asked, which has the same side data. Of a frame on a device PyAV makes it from
    a download; PyAV shows neither a stream's nor a packet's display matrix, and `rotation` misses vertical flips.
    """
    tiny = native.reformat(TINY_SIDE, TINY_SIDE, "gray", threads=1)
    try:
        matrix: Any = tiny.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives up on all side data where one kind (Exif) is unknown to it.
        return QUARTER_TURNS[round(native.rotation / 90) % 4]
    return Orientation() if matrix is None else _orientation_from_matrix(bytes(matrix))


def shrunk_size(geometry: Geometry, longest_side: int) -> tuple[int, int]:
    """Return width and height of the upright picture when its longer side is at most `longest_side`."""
    scale = min(1.0, longest_side / max(geometry.width, geometry.height))
    return max(1, round(geometry.width * scale)), max(1, round(geometry.height * scale))


def shrunk_from_frame(reformatter: VideoReformatter, frame: Frame, longest_side: int) -> NDArray[np.uint8]:
    """Return the upright picture as BGR [h, w, 3], its longer side at most `longest_side`; area filter, one pass."""
    geometry = frame.geometry
    upright = shrunk_size(geometry, longest_side)
    width, height = upright[::-1] if geometry.orientation.transpose else upright
    color = frame.picture.color
    small = reformatter.reformat(
        frame.native,
        width,
        height,
        "bgr24",
        src_colorspace=color.matrix,
        src_color_range=int(ColorRange.JPEG if color.full_range else ColorRange.MPEG),
        dst_color_range=int(ColorRange.JPEG),
        interpolation=Interpolation.AREA,
        threads=1,
    )
    bgr = geometry.orientation.apply(np.asarray(small.to_ndarray(), dtype=np.uint8))
    return bgr if color.hdr is None else np.ascontiguousarray(color.hdr.tone_mapped(bgr[..., ::-1])[..., ::-1])


def _plane(native: av.VideoFrame, number: int, bits: str | None) -> NDArray[Any]:
    """View a plane as [H, W], without the padding at the end of its lines."""
    plane = native.planes[number]
    samples: NDArray[Any] = np.frombuffer(plane, dtype=np.uint16 if bits else np.uint8)  # type: ignore[call-overload]
    stride = plane.line_size // samples.itemsize
    return samples[: plane.height * stride].reshape(plane.height, stride)[:, : plane.width]


def _reformatted(native: av.VideoFrame) -> av.VideoFrame:
    """Convert a rare layout to `FALLBACK_FORMAT`; colors given as RGB become BT.709 in full range."""
    if not native.format.is_rgb:
        converted = native.reformat(format=FALLBACK_FORMAT, threads=1)
        converted.colorspace, converted.color_range = native.colorspace, native.color_range
        return converted
    converted = native.reformat(format=FALLBACK_FORMAT, dst_colorspace=BT709, dst_color_range=FULL_RANGE, threads=1)
    converted.colorspace, converted.color_range = BT709, FULL_RANGE
    return converted


def _orientation_from_matrix(matrix: bytes) -> Orientation:
    """Read the 3x3 fixed-point matrix (FFmpeg: libavutil/display.h); angles between are rounded to quarter turns."""
    a, b, _, c, d = struct.unpack("<5i", matrix[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(transpose=False, flip_x=a < 0, flip_y=d < 0)
    return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
