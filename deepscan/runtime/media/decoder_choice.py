"""The choice between NVDEC and the CPU for each video, and counts of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from deepscan.options import DecoderChoice
from deepscan.runtime.cuda.device import Device, Queue
from deepscan.runtime.cuda.nvdec import MACROBLOCK, Nvdec
from deepscan.runtime.media.device_work import DeviceWork

# Up to so many pixels the CPU decodes in `auto`. Measured on an H200 (7 engines) with 16 CPU cores, H.264, frames/s on
# the CPU and on NVDEC: 360p 12,470 and 3,710, 720p 5,600 and 3,150, 1080p 2,290 and 2,530.
SMALL_PIXELS: Final = 1280 * 720
# FFmpeg's layouts of 4:2:0 in 8 and 10 bits. NVDEC's pictures of 8 bits come in NV12, those of more bits in P016.
BITS: Final = {"yuv420p": 8, "yuvj420p": 8, "yuv420p10le": 10}
SURFACES: Final = {8: "nv12", 10: "p016"}
# The kernels that make crops on the GPU know matrices only.
HDR_ON_CPU: Final = "HDR, which is tone-mapped on the CPU"
# What NVDEC decodes, by FFmpeg's names of codec and profile: where the standard fixes every bit of a picture, and where
# FFmpeg hands over NVDEC's picture as it is. Everything else goes to the CPU: docs/performance.md has the reasons.
# VP8 has no profiles that FFmpeg names.
PROFILES: Final[Mapping[str, tuple[str | None, ...]]] = {
    "h264": ("Constrained Baseline", "Main", "High"),
    "hevc": ("Main", "Main 10"),
    "vp8": (None,),
    "vp9": ("Profile 0", "Profile 2"),
}
# These code pictures of any height; the others code whole blocks, and cut off what is too much.
ODD_HEIGHT: Final = frozenset(["vp8", "vp9"])


class DecoderLost(Exception):
    """NVDEC gave up on a video that is not to blame; the CPU may decode it, from its start."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a file states about its video, as far as the choice of a decoder needs it.

    Codec, profile and pixel format are FFmpeg's names, of what the CPU would decode; sizes are in pixels, without what
    is cropped. `nvdec_in_ffmpeg` tells whether FFmpeg's decoder for it can use NVDEC.
    """

    codec: str
    profile: str | None
    pixel_format: str | None
    width: int
    height: int
    interlaced: bool
    nvdec_in_ffmpeg: bool
    hdr: bool = False


def reason_for_cpu(facts: StreamFacts, nvdec: Nvdec, requested: DecoderChoice) -> str | None:
    """Return why the CPU decodes a video; None if NVDEC does: if it can, and in `auto` where it is faster."""
    if requested == "cpu":
        return "the CPU was asked for"
    obstacle = _obstacle(facts, nvdec)
    if obstacle is not None or requested == "nvdec":
        return obstacle
    if facts.interlaced:
        return "interlaced, for which NVDEC was not compared with the CPU"
    return "small videos decode faster on the CPU" if facts.width * facts.height <= SMALL_PIXELS else None


def _obstacle(facts: StreamFacts, nvdec: Nvdec) -> str | None:
    """Return why NVDEC cannot decode a video, or None."""
    codec, profile = facts.codec, facts.profile
    if not nvdec.modes:
        return nvdec.problem or "this GPU decodes no video"
    if codec not in PROFILES:
        return f"{codec} is always decoded by the CPU"
    if not facts.nvdec_in_ffmpeg:
        return f"FFmpeg's decoder for {codec} does not use NVDEC"
    if profile not in PROFILES[codec]:
        return f"{codec} of profile {profile or 'unknown'}"
    if facts.hdr:
        return HDR_ON_CPU
    bits = BITS.get(facts.pixel_format or "")
    if bits is None:
        return f"{codec} with pixels as {facts.pixel_format or 'unknown'}"
    if codec in ODD_HEIGHT and facts.height % 2:
        # FFmpeg's libavcodec/nvdec.c looks for the chroma behind `height` lines of luma; NVDEC writes an even number.
        return f"{codec} of odd height, of which FFmpeg takes NVDEC's chroma from the wrong place"
    caps = nvdec.modes.get((codec, "420", bits))
    if caps is None or SURFACES[bits] not in caps.surfaces:
        return f"this GPU does not decode {codec} with {bits} bits"
    if facts.width < caps.min_width or facts.height < caps.min_height:
        return f"{codec} smaller than {caps.min_width} x {caps.min_height} pixels"
    columns, rows = -(-facts.width // MACROBLOCK), -(-facts.height // MACROBLOCK)
    too_large = facts.width > caps.max_width or facts.height > caps.max_height or columns * rows > caps.max_macroblocks
    return f"{codec} larger than {caps.max_width} x {caps.max_height} pixels" if too_large else None


class DecoderCounts:
    """Numbers of videos decoded by NVDEC, and by the CPU for each reason; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.nvdec = 0
        self.cpu: Counter[str] = Counter()

    def count(self, reason_for_cpu: str | None) -> None:
        """Count a video for the CPU, or for NVDEC without a reason."""
        with self._lock:
            if reason_for_cpu is None:
                self.nvdec += 1
            else:
                self.cpu[reason_for_cpu] += 1

    def move_to_cpu(self, reason: str) -> None:
        """Count a video for the CPU that was counted for NVDEC."""
        with self._lock:
            self.nvdec -= 1
            self.cpu[reason] += 1


@dataclass(frozen=True, slots=True, eq=False)
class DeviceDecoding:
    """What readers need to decode on a GPU; for any number of threads.

    Attributes:
        ordinal, device: CUDA's number of the GPU, and the GPU.
        work: what makes crops of its pictures.
        nvdec: what its decoders can.
        requested: the decoder that was asked for.
        counts: counts the decoders that were taken.
    """

    ordinal: int
    device: Device
    work: DeviceWork
    nvdec: Nvdec
    requested: DecoderChoice
    counts: DecoderCounts
    _of_thread: threading.local = field(default_factory=threading.local)

    def queue(self) -> Queue:
        """Return the calling thread's queue: one for all its videos, as a device keeps its queues until it is closed.

        Raises:
            MachineError: the device fails.
        """
        if not hasattr(self._of_thread, "queue"):
            self._of_thread.queue = self.device.queue()
        queue: Queue = self._of_thread.queue
        return queue
