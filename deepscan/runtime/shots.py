"""Cuts: a new shot begins where the picture changes at once. Cheap enough for every frame, on the luma plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.frames import Picture

BLOCKS = 16
SAMPLES_PER_BLOCK = 6
# Mean difference of block luma, in 8-bit levels. On real footage neighbouring frames of a shot, hand-held and moving
# people included, differ by at most 5.3, frames across a cut by more than 60 (docs/faces.md).
CUT_DIFFERENCE = 25.0


def luma_signature(picture: Picture) -> NDArray[np.float32]:
    """Return a tiny version of the luma plane, float32 [16, 16] in 8-bit levels: means of 36 samples per block."""
    plane = picture.planes[0]
    samples = BLOCKS * SAMPLES_PER_BLOCK
    rows, columns = (np.linspace(0, side - 1, samples).astype(np.intp) for side in plane.shape)
    sampled = plane[rows[:, None], columns].reshape(BLOCKS, SAMPLES_PER_BLOCK, BLOCKS, SAMPLES_PER_BLOCK)
    scale = 1 / (1 << (picture.bit_depth - 8))
    signature: NDArray[np.float32] = sampled.mean(axis=(1, 3), dtype=np.float32) * np.float32(scale)
    return signature


def is_cut(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    """Tell whether two neighbouring frames belong to different shots."""
    return float(np.abs(after - before).mean()) > CUT_DIFFERENCE
