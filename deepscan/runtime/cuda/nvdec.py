"""Capabilities of a GPU's video decoders (NVDEC), queried from NVIDIA's driver.

Layout and numbers: `cuviddec.h` of NVIDIA's Video Codec SDK (`CUVIDDECODECAPS`, `cudaVideoCodec`,
`cudaVideoChromaFormat`, `cudaVideoSurfaceFormat`); they are part of the driver's binary interface and do not change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

CUVID_LIBRARY: Final = "libnvcuvid.so.1"
# FFmpeg's names of the codecs that `deepscan.runtime.media.decoder_choice` may give to NVDEC.
CODECS: Final[Mapping[str, int]] = MappingProxyType({"h264": 4, "hevc": 8, "vp8": 9, "vp9": 10})
CHROMAS: Final[Mapping[str, int]] = MappingProxyType({"420": 1})
DEPTHS: Final = (8, 10)
SURFACES: Final = ("nv12", "p016", "yuv444", "yuv444p16", "nv16", "p216")
MACROBLOCK: Final = 16

# FFmpeg's name of the codec, chroma subsampling as "420", bits of a sample.
Mode = tuple[str, str, int]


class DecodeCapsStruct(ctypes.Structure):
    """`CUVIDDECODECAPS`, 88 bytes: the first six numbers are the query, the others the answer."""

    _fields_ = (
        ("codec", ctypes.c_int),
        ("chroma", ctypes.c_int),
        ("depth_minus_8", ctypes.c_uint),
        ("reserved_for_questions", ctypes.c_uint * 3),
        ("supported", ctypes.c_ubyte),
        ("engines", ctypes.c_ubyte),
        ("surface_mask", ctypes.c_ushort),
        ("max_width", ctypes.c_uint),
        ("max_height", ctypes.c_uint),
        ("max_macroblocks", ctypes.c_uint),
        ("min_width", ctypes.c_ushort),
        ("min_height", ctypes.c_ushort),
        ("histogram", ctypes.c_ubyte),
        ("histogram_depth", ctypes.c_ubyte),
        ("histogram_bins", ctypes.c_ushort),
        ("reserved_for_answers", ctypes.c_uint * 10),
    )


@dataclass(frozen=True, slots=True)
class DecodeCaps:
    """NVDEC's capabilities for one kind of video.

    Attributes:
        engines: number of decoders on the GPU; 0 if an old driver does not report it.
        min_width, min_height, max_width, max_height: limits of coded pictures, in pixels.
        max_macroblocks: limit of macroblocks, 16 x 16 pixels each, in a coded picture.
        surfaces: possible layouts of decoded pictures, of `SURFACES`.
    """

    engines: int
    min_width: int
    min_height: int
    max_width: int
    max_height: int
    max_macroblocks: int
    surfaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Nvdec:
    """Capabilities of the video decoders of one GPU.

    Attributes:
        modes: capabilities for each supported kind of video.
        problem: why there are none, if the driver could not be queried.
    """

    modes: Mapping[Mode, DecodeCaps] = field(default_factory=dict)
    problem: str | None = None

    @property
    def engines(self) -> int:
        """Number of video decoders on the GPU; 0 if the driver does not report it."""
        return max((caps.engines for caps in self.modes.values()), default=0)


def nvdec(library: str = CUVID_LIBRARY) -> Nvdec:
    """Query the driver for the GPU whose CUDA context is current in this thread.

    Args:
        library: the driver's video library, by name or path.
    """
    try:
        ask = ctypes.CDLL(library).cuvidGetDecoderCaps
    except (OSError, AttributeError) as error:
        return Nvdec(problem=f"the driver's video library cannot be loaded ({error})")
    ask.argtypes, ask.restype = [ctypes.POINTER(DecodeCapsStruct)], ctypes.c_int
    modes: dict[Mode, DecodeCaps] = {}
    error_code = 0
    for codec, codec_number in CODECS.items():
        for chroma, chroma_number in CHROMAS.items():
            for depth in DEPTHS:
                answer = DecodeCapsStruct(codec=codec_number, chroma=chroma_number, depth_minus_8=depth - 8)
                failed = ask(ctypes.byref(answer))
                error_code = error_code or failed  # a driver older than a codec may refuse the question
                if not failed and answer.supported:
                    modes[codec, chroma, depth] = _caps_from_struct(answer)
    if error_code and not modes:
        return Nvdec(problem=f"the driver says nothing about its video decoders (CUDA error {error_code})")
    return Nvdec(modes)


def _caps_from_struct(answer: DecodeCapsStruct) -> DecodeCaps:
    return DecodeCaps(
        engines=answer.engines,
        min_width=answer.min_width,
        min_height=answer.min_height,
        max_width=answer.max_width,
        max_height=answer.max_height,
        max_macroblocks=answer.max_macroblocks,
        surfaces=frozenset(name for number, name in enumerate(SURFACES) if answer.surface_mask >> number & 1),
    )
