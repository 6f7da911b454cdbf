"""The tables that kernels read: one line for each result, in the layout of the structs in `kernels.cu`.

Every table has `width` and `height`, the pixels of a line's result, which is all that launching a kernel needs to know.
Addresses are the device's; sizes and steps are in bytes unless noted otherwise.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

# Blocks of a luma plane across and down, and the samples of each that are added up, across and down.
BLOCKS: Final = 16
SAMPLES_PER_BLOCK: Final = 6

_PLANE: Final = [
    ("address", "u8"),
    ("row", "i8"),  # to the sample below
    ("step", "i4"),  # to the sample on the right
    ("width", "i4"),  # samples
    ("height", "i4"),  # samples
    ("unused", "i4"),
    ("start", "f8", (2,)),  # x0 and y0 in samples of the box that is resampled; it may reach beyond the plane
    ("scale", "f8", (2,)),  # samples for each one of the result, across and down: GPUs divide slowly
]

# Resamples a box of each plane by a triangle filter, as `deepscan.runtime.faces.crops` defines, and turns it into RGB.
RESAMPLE: Final[np.dtype[Any]] = np.dtype(
    [
        ("width", "i4"),  # of the upright result
        ("height", "i4"),
        ("plane", _PLANE, (3,)),  # Y, Cb, Cr (or G, B, R)
        ("planes", "i4"),  # 3, or 1: then Cb and Cr are 128
        ("sample_bytes", "i4"),  # 1 or 2, little-endian
        ("depth", "i4"),  # bits of a sample that count, the lowest ones
        ("transpose", "i4"),  # of the orientation: transpose first, then flip
        ("flip_x", "i4"),
        ("flip_y", "i4"),
        ("matrix", "f4", (3, 4)),  # from (Y, Cb, Cr, 1) to the three channels of the result, in its order
        ("target", "u8"),
        ("target_row", "i8"),
        ("target_pixel", "i4"),
        ("target_channel", "i4"),
        ("target_float", "i4"),  # 0: uint8; 1: float32 with the same whole numbers
        ("unused", "i4"),
    ],
    align=True,
)

# Warps RGB by a 2 x 3 matrix: bilinear between pixel centers, black outside, as OpenCV's `warpAffine`.
WARP: Final[np.dtype[Any]] = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),
        ("source", "u8"),  # RGB uint8, pixels without gaps
        ("source_row", "i8"),
        ("source_width", "i4"),  # pixels
        ("source_height", "i4"),
        ("matrix", "f8", (2, 3)),  # from a pixel (x, y, 1) of the result to the source
        ("target", "u8"),  # RGB uint8
        ("target_row", "i8"),
    ],
    align=True,
)

# Copies RGB pixels without gaps into a place without gaps, mirrored if asked.
COPY: Final[np.dtype[Any]] = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),  # rows: of a clip, those of all its pictures
        ("source", "u8"),
        ("target", "u8"),
        ("mirrored", "i4"),
        ("unused", "i4"),
    ],
    align=True,
)

# Adds up samples of a plane block by block, for finding shot boundaries.
SUM_LUMA: Final[np.dtype[Any]] = np.dtype(
    [
        ("width", "i4"),  # blocks
        ("height", "i4"),
        ("address", "u8"),  # of the plane
        ("row", "i8"),
        ("step", "i4"),
        ("sample_bytes", "i4"),
        ("target", "u8"),  # uint32, without gaps
        ("rows", "i4", (BLOCKS * SAMPLES_PER_BLOCK,)),  # of the samples
        ("columns", "i4", (BLOCKS * SAMPLES_PER_BLOCK,)),
    ],
    align=True,
)
