"""Color: from the three planes of a decoded picture to RGB, by the matrix and range that the video declares.

Matrices and ranges: ITU-T H.273, tables 4 (matrix coefficients) and equations 20-31 (limited and full range).
A transfer function is applied to HDR pictures alone (`hdr.py`), after the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.media.hdr import Hdr, declared_hdr

# H.273 code point -> (Kr, Kb), the weights of red and blue in luma.
LUMA_WEIGHTS: dict[int, tuple[float, float]] = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
    10: (0.2627, 0.0593),  # BT.2020, constant luminance: close, not exact
}
BT709, BT601 = 1, 6
# The planes are G, B and R themselves: how still pictures are kept. Of a video it is not believed, as readers give luma
# and chroma.
IDENTITY = 0
RGB_FROM_GBR = ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
UNSPECIFIED = 2  # H.273's code point of transfer and primaries
# Where a video says nothing, players take BT.709 for high definition and BT.601 below.
HD_WIDTH, HD_HEIGHT = 1280, 576


@dataclass(frozen=True, slots=True)
class Color:
    """How a picture's numbers mean colors.

    Attributes:
        matrix: H.273 code point of the matrix coefficients, one of `LUMA_WEIGHTS` or `IDENTITY`.
        full_range: luma (or G, B and R) spans 0..255 instead of 16..235 (in 8-bit terms).
        hdr: how the RGB is still to be tone-mapped; None for SDR.
    """

    matrix: int
    full_range: bool
    hdr: Hdr | None = None

    def rgb_matrix(self) -> NDArray[np.float32]:
        """Return the affine map [3, 4] from 8-bit (Y, Cb, Cr, 1), or (G, B, R, 1), to RGB in 0..255."""
        luma_offset = 0.0 if self.full_range else 16.0
        luma_gain = 1.0 if self.full_range else 255 / 219
        chroma_gain = 1.0 if self.full_range else 255 / 224
        if self.matrix == IDENTITY:
            linear, zero = luma_gain * np.array(RGB_FROM_GBR), np.full(3, luma_offset)
        else:
            red, blue = LUMA_WEIGHTS[self.matrix]
            green = 1.0 - red - blue
            g_row = [1.0, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green]
            from_luma = np.array([[1.0, 0.0, 2 * (1 - red)], g_row, [1.0, 2 * (1 - blue), 0.0]])
            linear = from_luma * np.array([luma_gain, chroma_gain, chroma_gain])
            zero = np.array([luma_offset, 128.0, 128.0])
        return np.column_stack([linear, -linear @ zero]).astype(np.float32)


def declared_color(
    *, matrix: int, full_range: bool, width: int, height: int, transfer: int = UNSPECIFIED, primaries: int = UNSPECIFIED
) -> Color:
    """Return the color of a picture, guessing the matrix from its size where it declares none that is known."""
    hdr = declared_hdr(transfer=transfer, primaries=primaries, matrix=matrix)
    if matrix not in LUMA_WEIGHTS:
        matrix = BT709 if width >= HD_WIDTH or height > HD_HEIGHT else BT601
    return Color(matrix=matrix, full_range=full_range, hdr=hdr)
