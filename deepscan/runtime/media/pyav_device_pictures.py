"""From PyAV's frames on a GPU (NV12, P010, P016) to `Picture`: copied on the GPU, never downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.cuda.nvdec import wait_for_default_stream
from deepscan.runtime.media.decoder_choice import HDR_ON_CPU, DecoderLost
from deepscan.runtime.media.frames import Picture
from deepscan.runtime.media.luma_sums import luma_sums
from deepscan.runtime.media.pyav_pictures import color_from_av

if TYPE_CHECKING:
    from deepscan.runtime.cuda.device import Queue
    from deepscan.runtime.media.device_work import DeviceWork

# FFmpeg's layouts with a plane of luma and one of Cb and Cr in turns, and how many bits of a sample count. Those of
# 10 and 12 bits are the highest of 16, the others are zero: read as 16 bits they mean the same.
SEMI_PLANAR: Final = {"nv12": 8, "p010le": 16, "p012le": 16, "p016le": 16}


@dataclass(frozen=True, slots=True)
class Copied:
    """What remains of a decoder's frame whose planes were copied; the frame itself would keep its memory.

    Attributes:
        key_frame: it was decoded without others.
    """

    key_frame: bool


def nvdec_acceleration(ordinal: int) -> HWAccel:
    """Return what makes PyAV decode on NVDEC and leave the frames there.

    FFmpeg shares the CUDA context that is current in the calling thread: with one of its own, whoever made the primary
    context first wins, and the other fails. PyAV makes a decoder for each container, so a session is created for each
    video; what a pool of them would save on short videos could not be measured.

    Args:
        ordinal: CUDA's number of the GPU.
    """
    return HWAccel(
        "cuda",
        device=str(ordinal),
        is_hw_owned=True,
        allow_software_fallback=False,
        options={"primary_ctx": "0", "current_ctx": "1"},
    )


def picture_on_device(native: av.VideoFrame, *, left_chroma: bool, queue: Queue, work: DeviceWork) -> Picture:
    """Copy a decoded frame's planes within the device; the frame may be dropped once this returns.

    Args:
        native: a frame of one of the layouts `SEMI_PLANAR`, in memory that `queue` can read.
        left_chroma: see `Picture`.
        queue: of this thread.
        work: makes crops of it.

    Raises:
        DecoderLost: it has another layout, or is HDR.
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
        wait_for_default_stream()
    planes = _copied_planes(native, bits, queue)
    sums = luma_sums(queue, planes[0])
    # The decoder may write to its memory again as soon as it is called again: `download` waits for the copies, too.
    return Picture(
        planes=planes,
        bit_depth=bits,
        luma_sums=queue.download(sums),
        color=color,
        left_chroma=left_chroma,
        work=work,
    )


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
    queue.copy(
        chroma_address,
        row,
        DeviceArray(
            native, chroma.buffer_ptr, (chroma_height, chroma_width, 2), kind, (chroma.line_size, 2 * size, size)
        ),
    )
    shape, strides = (chroma_height, chroma_width), (row, 2 * size)
    return (
        DeviceArray(memory.owner, memory.address, (height, width), kind, (row, size)),
        DeviceArray(memory.owner, chroma_address, shape, kind, strides),
        DeviceArray(memory.owner, chroma_address + size, shape, kind, strides),
    )
