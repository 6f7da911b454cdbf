"""Small synthetic frames, and the detector specs that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepscan.models.lite import LITE
from deepscan.runtime.faces.crops import crop_square
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.media.color import Color
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob, frame_tasks
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Box, Geometry
from deepscan.runtime.media.sampling import Sampling
from deepscan.spec import Calibration, CropPolicy, DetectorSpec, SquareCrop

SIDE = 256
# The square is the box itself: what is in a crop tells where the box was.
EXACT_CROP = SquareCrop(scale=1.0, shift_down=0.0)


def ramp_frame(seconds: float, *, axis: Literal["x", "y"] = "x", index: int = 0) -> Frame:
    """Return a gray frame [256, 256] whose every pixel holds its own x or y, so that a crop shows its place."""
    ramp = np.arange(SIDE, dtype=np.uint8)
    plane = np.ascontiguousarray(np.broadcast_to(ramp if axis == "x" else ramp[:, None], (SIDE, SIDE)))
    picture = Picture((plane,), 8, Color(matrix=6, full_range=True), left_chroma=False)
    return Frame(index=index, pts_seconds=seconds, picture=picture, geometry=Geometry(SIDE, SIDE), native=None)


def look_at(frame: Frame, *, starts_shot: bool = False, searched: bool = True) -> FrameTask:
    """Return a frame that was searched for faces, or one between such frames."""
    small = np.zeros((1, 1, 3), dtype=np.uint8) if searched else None
    return FrameTask(VideoJob(0, "video"), frame, small, starts_shot, position=frame.index)


def tasks_of(frames: Iterable[tuple[int, Frame]], sampling: Sampling) -> Iterator[FrameTask]:
    """Return what becomes of frames and the numbers of their windows; no picture is really made for the search."""
    return frame_tasks(VideoJob(0, "video"), frames, sampling, lambda _: np.zeros((1, 1, 3), dtype=np.uint8))


def faces_at(*boxes: tuple[float, float, float, float]) -> Faces:
    """Return what a face detector says that sees these boxes."""
    count = len(boxes)
    return Faces(
        boxes_of(*boxes),
        np.zeros((count, 5, 2), dtype=np.float32),
        np.ones(count, dtype=np.float32),
    )


def boxes_of(*boxes: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Return boxes as an array [K, 4]."""
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def lite_square(box: Box) -> Box:
    """Return the square that the embedded detector sees around a face box."""
    assert isinstance(LITE.crop, SquareCrop)
    return crop_square(box, LITE.crop)


def spec_with(
    *,
    pooling: Literal["logit", "score"] = "logit",
    scale: float = 1.0,
    offset: float = 0.0,
    size: int = LITE.size,
    crop: CropPolicy = LITE.crop,
) -> DetectorSpec:
    """Return the embedded detector's spec with other rules for its scores."""
    calibration = Calibration(scale=scale, offset=offset)
    return msgspec.structs.replace(LITE, pooling=pooling, calibration=calibration, size=size, crop=crop)
