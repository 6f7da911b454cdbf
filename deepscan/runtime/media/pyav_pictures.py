"""From PyAV's frames to `Picture`: planes without a copy, color, orientation; and the small picture for faces.

Frames on a GPU (NV12, P010, P016) are copied there and never downloaded.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from deepscan.runtime.cuda.device import DeviceArray, Queue
from deepscan.runtime.cuda.kernel_jobs import BLOCKS, SUM_LUMA
from deepscan.runtime.media.color import BT709, Color, declared_color
from deepscan.runtime.media.decoder_choice import HDR_ON_CPU, DecoderLost
from deepscan.runtime.media.device_work import DevicePicture, DeviceWork
from deepscan.runtime.media.frame_tasks import sample_places
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Orientation

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
# FFmpeg's layouts with a plane of luma and one of Cb and Cr in turns, and how many bits of a sample count. Those of
# 10 and 12 bits are the highest of 16, the others are zero: read as 16 bits they mean the same.
SEMI_PLANAR: Final = {"nv12": 8, "p010le": 16, "p012le": 16, "p016le": 16}


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
    """Return what the numbers of a decoded frame mean; its layout may imply full range."""
    return declared_color(
        matrix=native.colorspace,
        full_range=full_range or native.color_range == FULL_RANGE,
        width=native.width,
        height=native.height,
        transfer=native.color_trc,
        primaries=native.color_primaries,
    )


def orientation_from_av(native: av.VideoFrame) -> Orientation:
    """Return how to turn a decoded frame upright.

    PyAV's side data and their frame refer to each other, which keeps the frame alive until Python's next garbage
    collection; so they are read from a tiny copy, for which a frame on a device is downloaded. PyAV shows neither a
    stream's nor a packet's display matrix, and `rotation` misses vertical flips.
    """
    tiny = native.reformat(TINY_SIDE, TINY_SIDE, "gray", threads=1)
    try:
        matrix: Any = tiny.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV gives up on all side data where one kind (Exif) is unknown to it.
        return QUARTER_TURNS[round(native.rotation / 90) % 4]
    return Orientation() if matrix is None else _orientation_from_matrix(bytes(matrix))


def shrunk_from_frame(reformatter: VideoReformatter, frame: Frame, longest_side: int) -> NDArray[np.uint8]:
    """Return the upright picture as BGR [h, w, 3], its longer side at most `longest_side`; area filter, one pass."""
    geometry = frame.geometry
    upright = geometry.shrunk(longest_side)
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


def nvdec_acceleration(ordinal: int) -> HWAccel:
    """Return the acceleration that makes PyAV decode on NVDEC of CUDA's GPU `ordinal`, and leave the frames there.

    FFmpeg shares the CUDA context that is current in the calling thread; with a context of its own, the second user of
    the primary context would fail. PyAV makes a decoder, and so a session, for each container; what a pool of them
    would save on short videos could not be measured.
    """
    return HWAccel(
        "cuda",
        device=str(ordinal),
        is_hw_owned=True,
        allow_software_fallback=False,
        options={"primary_ctx": "0", "current_ctx": "1"},
    )


def picture_on_device(native: av.VideoFrame, *, left_chroma: bool, queue: Queue, work: DeviceWork) -> DevicePicture:
    """Copy a decoded frame's planes within the device, for `work` to make crops of; the frame may then be dropped.

    Its layout is one of `SEMI_PLANAR`, its memory such that this thread's `queue` can read it.

    Raises:
        DecoderLost: the frame has another layout, or is HDR.
        MachineError: the device fails, or has no memory left.
    """
    layout = (native.sw_format or native.format).name
    if layout not in SEMI_PLANAR:
        raise DecoderLost(f"NVDEC gives pictures as {layout}")
    color = color_from_av(native)
    if color.hdr is not None:
        raise DecoderLost(HDR_ON_CPU)
    bits = SEMI_PLANAR[layout]
    if native.sw_format is not None:
        queue.follow_default_stream()
    planes = _copied_planes(native, bits, queue)
    sums = luma_sums(queue, planes[0])
    # The decoder may write to its memory again as soon as it is called again: `download` waits for the copies, too.
    return DevicePicture(planes, bits, color, left_chroma, work, queue.download(sums))


def _copied_planes(native: av.VideoFrame, bits: int, queue: Queue) -> tuple[DeviceArray, DeviceArray, DeviceArray]:
    """Begin to copy both planes into one piece of memory, and return Y, Cb and Cr in it.

    Addresses and line sizes are all that is needed. The planes' DLPack capsules say the same, but only through a
    library that takes capsules apart, or by reading a C struct at an address.
    """
    kind: np.dtype[Any] = np.dtype(np.uint8 if bits == 8 else np.uint16)
    size = kind.itemsize
    luma, chroma = native.planes
    # An odd number of pixels has one more column or row of chroma than half of it: FFmpeg rounds up, and so does NVDEC.
    height, width, chroma_height, chroma_width = luma.height, luma.width, chroma.height, chroma.width
    row = max(width, 2 * chroma_width) * size
    memory = queue.empty((height + chroma_height, row // size), kind)
    chroma_address = memory.address + height * row
    queue.copy(memory.address, row, DeviceArray(native, luma.buffer_ptr, (height, width), kind, (luma.line_size, size)))
    shape, strides = (chroma_height, chroma_width), (row, 2 * size)
    pairs = DeviceArray(native, chroma.buffer_ptr, (*shape, 2), kind, (chroma.line_size, 2 * size, size))
    queue.copy(chroma_address, row, pairs)
    return (
        DeviceArray(memory.owner, memory.address, (height, width), kind, (row, size)),
        DeviceArray(memory.owner, chroma_address, shape, kind, strides),
        DeviceArray(memory.owner, chroma_address + size, shape, kind, strides),
    )


def luma_sums(queue: Queue, plane: DeviceArray) -> DeviceArray:
    """Begin to add up samples of a luma plane, uint8 or uint16 [H, W]; see `DevicePicture.luma_sums`.

    Returns:
        uint32 [16, 16], once the queue was waited for.
    """
    sums = queue.empty((BLOCKS, BLOCKS), np.dtype(np.uint32))
    job = np.zeros(1, dtype=SUM_LUMA)
    job["width"] = job["height"] = BLOCKS
    job["address"], (job["row"], job["step"]) = plane.address, plane.strides
    job["sample_bytes"], job["target"] = plane.kind.itemsize, sums.address
    height, width = plane.shape
    job["rows"], job["columns"] = sample_places((height, width))
    queue.run("sum_luma", job)
    return sums
