"""What tests of the infer stage are made with: a backend that can be computed by hand, crops, the ends of videos."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import UnsupportedInput
from deepscan.options import Aggregate, Arithmetic
from deepscan.results import VideoResult
from deepscan.runtime.backends.contract import Items
from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.cuda.pixels import Pixels
from deepscan.runtime.faces.cropping import FaceInFrame, FaceInput
from deepscan.runtime.faces.face_selection import SkipSummary
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.frames import VideoInfo
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.messages import ToInfer, VideoDecoded, VideoFollowed
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.scoring import ScoringSettings
from tests.runtime.cuda.device_frames import on_device as copied_to
from tests.runtime.cuda.host_device import HostDevice
from tests.runtime.scenes import spec_with

SIDE = 8
INFO = VideoInfo("h264", 640, 360, 4.0, 0.04)
QUICK = Sampling("middles", count=16, nearby=True)


def moved_to_device(pixels: NDArray[np.uint8]) -> DeviceArray:
    queue = HostDevice().queue()
    there = copied_to(queue, pixels)
    queue.wait()
    return there


def brought_back(item: DeviceArray) -> NDArray[np.uint8]:
    """Return the pixels of a crop on the host device, mirrored where it says so."""
    pixels: NDArray[np.uint8] = HostDevice().queue().download(item)
    return pixels[:, ::-1] if item.mirrored else pixels


class BrightnessBackend:
    """Computes a logit from the pixels: twice as much from the left half as from the right one."""

    name = "brightness-cpu"
    precision: Arithmetic = "fp32"

    def __init__(self, max_batch: int = 8) -> None:
        self.max_batch = max_batch
        self.batches: list[int] = []

    def logits(self, batch: Items) -> NDArray[np.float32]:
        assert 1 <= len(batch) <= self.max_batch
        self.batches.append(len(batch))
        pixels = np.stack([item if isinstance(item, np.ndarray) else brought_back(item) for item in batch])
        left, right = pixels[:, :, : SIDE // 2], pixels[:, :, SIDE // 2 :]
        means = 2 * left.mean(axis=(1, 2, 3), dtype=np.float32) + right.mean(axis=(1, 2, 3), dtype=np.float32)
        logits: NDArray[np.float32] = means / np.float32(100) - np.float32(3)
        return logits

    def close(self) -> None:
        pass


def crop(job: VideoJob, track: int, seconds: float, left: int, right: int) -> FaceInput:
    pixels = np.full((SIDE, SIDE, 3), left, dtype=np.uint8)
    pixels[:, SIDE // 2 :] = right
    return face_input(job, track, seconds, pixels)


def face_input(job: VideoJob, track: int, seconds: float, pixels: Pixels, *, sightings: int = 3) -> FaceInput:
    several = range(round(100 * seconds), round(100 * seconds) + sightings)
    return FaceInput(job, (0,), track, seconds, seconds, 1, pixels, tuple(several), seen_at(seconds))


def seen_at(seconds: float) -> FaceInFrame:
    box, landmarks = np.array([10, 20, 110, 140], np.float32), np.arange(10, dtype=np.float32).reshape(5, 2)
    return FaceInFrame(seconds, round(100 * seconds), box, landmarks, found=True)


def logit_of(left: int, right: int) -> float:
    return (2 * left + right) / 100 - 3


def end_of(
    job: VideoJob, *, failure: UnsupportedInput | None = None, damage: str | None = None, small: int = 0
) -> ToInfer:
    decoded = VideoDecoded(job, None if failure else INFO, 100, failure, damage)
    return VideoFollowed(job, decoded, 2, (SkipSummary(small_faces=small),))


def stage_of(backend: BrightnessBackend, *, mirror: bool = False, aggregate: Aggregate = "max") -> InferStage:
    settings = ScoringSettings(
        model="lite",
        spec=spec_with(size=SIDE),
        aggregate=aggregate,
        decisive_frames=2,
        sampling=QUICK,
        mirror=mirror,
        weights_sha256="weights",
        settings_sha256="settings",
    )
    return InferStage([(backend, settings)], progress=Progress())


def results_of(stage: InferStage, messages: list[ToInfer], batch: int = 16) -> list[VideoResult]:
    batches = [messages[start : start + batch] for start in range(0, len(messages), batch)]
    return [result for part in batches for scored in stage(part) for result in scored.results]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def settings_of(model: str, *, mirror: bool = False) -> ScoringSettings:
    return ScoringSettings(
        model=model,
        spec=spec_with(size=SIDE),
        aggregate="mean",
        decisive_frames=1,
        sampling=QUICK,
        mirror=mirror,
        weights_sha256=model,
        settings_sha256="settings",
    )
