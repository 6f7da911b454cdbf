"""Shot boundaries: a new shot begins where the picture changes at once.

Looking at a few samples of the luma plane is cheap enough for every frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepscan.runtime.cuda.kernel_jobs import BLOCKS, SAMPLES_PER_BLOCK
from deepscan.runtime.media.frames import DevicePicture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.media.frames import Picture

# Mean difference of block luma, in 8-bit levels. On real footage neighboring frames of a shot, hand-held and moving
# people included, differ by at most 5.3, frames across a shot boundary by more than 60 (docs/faces.md).
BOUNDARY_DIFFERENCE = 25.0


def luma_signature(picture: Picture | DevicePicture) -> NDArray[np.float32]:
    """Return a tiny version of the luma plane, float32 [16, 16] in 8-bit levels: means of 36 samples per block."""
    if isinstance(picture, DevicePicture):
        sums = picture.luma_sums
    else:
        plane = picture.planes[0]
        rows, columns = sample_places(plane.shape)
        sampled = plane[rows[:, None], columns].reshape(BLOCKS, SAMPLES_PER_BLOCK, BLOCKS, SAMPLES_PER_BLOCK)
        sums = sampled.sum(axis=(1, 3), dtype=np.uint32)
    levels = SAMPLES_PER_BLOCK**2 << (picture.bit_depth - 8)
    return (sums / levels).astype(np.float32)


def sample_places(shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and the columns of a luma plane [H, W] where samples are taken, 96 of each."""
    rows, columns = (np.linspace(0, side - 1, BLOCKS * SAMPLES_PER_BLOCK).astype(np.intp) for side in shape)
    return rows, columns


def is_shot_boundary(before: NDArray[np.float32], after: NDArray[np.float32]) -> bool:
    """Tell whether two neighboring frames belong to different shots."""
    return float(np.abs(after - before).mean()) > BOUNDARY_DIFFERENCE
