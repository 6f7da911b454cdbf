"""Crops of frames that were decoded on the CPU, for tests that look at their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces import alignment, crops
from deepscan.runtime.faces.alignment import FaceRegion
from deepscan.runtime.faces.crops import IntBox
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.geometry import Box
from deepscan.spec import Landmarks


def crop_rgb(frame: Frame, box: Box, size: int) -> NDArray[np.uint8]:
    return host_array(crops.crop_rgb(frame, box, size))


def region_rgb(frame: Frame, box: IntBox) -> NDArray[np.uint8]:
    return host_array(crops.region_rgb(frame, box))


def similarity_crop(frame: Frame, landmarks: NDArray[np.float32], target: Landmarks, size: int) -> NDArray[np.uint8]:
    return host_array(alignment.similarity_crop(frame, landmarks, target, size))


def aligned_clip(regions: Sequence[FaceRegion], target: Landmarks, size: int) -> NDArray[np.uint8]:
    return host_array(alignment.aligned_clip(regions, target, size))
