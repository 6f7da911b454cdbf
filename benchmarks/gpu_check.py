"""Checks that precede measurements: the tests that need a GPU, and the agreement of GPU scans with CPU scans."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

import deepscan
from benchmarks.footage import EXAMPLES
from benchmarks.gpu_stages import worker_pipeline
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.faces.cropping import crop_specs_for, piece_of
from deepscan.runtime.faces.detections import Detection
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.frames import DevicePicture
from deepscan.runtime.pipeline.stages import FacesStage

MOST_MEAN_LEVELS: Final = 2.0
MOST_LEVELS: Final = 8
SHARE_WITHIN: Final = 0.999
MOST_SCORE_DIFFERENCE: Final = 0.01
TAIL_CHARACTERS: Final = 4000
# 8 bits in 4:2:0, which NVDEC decodes: others are decoded on the CPU, also in a scan on a GPU.
DECODABLE: Final = ("astronaut_h264.mp4", "phone_portrait_hevc.mp4")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one check.

    Attributes:
        name: what.
        passed: whether it is as it should be.
        details: numbers, or the end of what a program said.
    """

    name: str
    passed: bool
    details: str


@dataclass(frozen=True)
class Difference:
    """How far pixels are apart: in the mean, in levels; and the share of those that differ by at most `MOST_LEVELS`."""

    mean: float
    within: float

    @property
    def small(self) -> bool:
        """Whether a detector may not notice it."""
        return self.mean <= MOST_MEAN_LEVELS and self.within >= SHARE_WITHIN


def difference(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> Difference:
    """Compare pictures of one shape."""
    if ours.shape != theirs.shape:
        raise ValueError(f"{ours.shape} and {theirs.shape}")
    apart = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
    return Difference(float(apart.mean()), float((apart <= MOST_LEVELS).mean()))


def gpu_tests() -> Check:
    """Run the tests that need a GPU; one that is skipped for lack of a GPU counts as failed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"DEEPSCAN_REQUIRE_GPU": "1"}
    root = Path(__file__).parent.parent
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    said = (run.stdout + run.stderr).strip()
    return Check(name="tests marked gpu", passed=run.returncode == 0, details=said[-TAIL_CHARACTERS:])


def scores_agree(model: str) -> Check:
    """Scan the examples on both, and compare every score."""
    cpu = deepscan.scan(EXAMPLES, model=model, device="cpu", backend="onnxruntime", precision="fp32")
    gpu = deepscan.scan(EXAMPLES, model=model, device="cuda")
    cpu_results, gpu_results = (sorted(scan, key=lambda result: result.row) for scan in (cpu, gpu))
    lines, passed = [], True
    for ours, theirs in zip(cpu_results, gpu_results, strict=True):
        same = ours.status == theirs.status and (ours.score is None) == (theirs.score is None)
        apart = abs(ours.score - theirs.score) if ours.score is not None and theirs.score is not None else 0.0
        passed &= same and apart <= MOST_SCORE_DIFFERENCE
        lines.append(f"{Path(ours.path).name}: {ours.status} {ours.score}, {theirs.status} {theirs.score}")
    return Check(name=f"scores of {model}", passed=passed and bool(lines), details="; ".join(lines))


def crops_agree(model: str, example: str) -> Check:
    """Cut the same faces of the same frames from planes of both, and compare every crop."""
    path = EXAMPLES / example
    (cut,) = crop_specs_for([load_artifact(model).manifest.spec], whole_pictures=False)
    cpu = worker_pipeline(model, device="cpu", backend="onnxruntime", precision="fp32")
    gpu = worker_pipeline(model, device="cuda")
    faces: FacesStage = cpu.stages[0].function  # type: ignore[assignment]
    name = f"crops of {model} from {example}"
    ours, theirs = (_searched(pipeline.source.function(VideoJob(0, str(path)))) for pipeline in (cpu, gpu))
    if len(ours) != len(theirs):
        return Check(name=name, passed=False, details=f"{len(ours)} frames on the CPU, {len(theirs)} on the GPU")
    pairs: list[tuple[Any, Any]] = []
    for look, found, other in zip(ours, faces._detected(ours), theirs, strict=True):
        for number in range(len(found)):
            at = Detection(found.boxes[number], found.landmarks[number])
            pieces = (piece_of(each.frame, at, cut) for each in (look, other))
            pairs.append(tuple(getattr(piece, "pixels", piece) for piece in pieces))  # type: ignore[arg-type]
        if isinstance(other.frame.picture, DevicePicture):
            other.frame.picture.work.finish()
    on_device = bool(pairs) and all(isinstance(pair[1], DeviceArray) for pair in pairs)
    if not on_device:
        return Check(name=name, passed=False, details=f"{len(pairs)} crops, not all of them made on the GPU")
    apart = [difference(crop, other.work.queue.download(other)) for crop, other in pairs]
    mean, within = max(each.mean for each in apart), min(each.within for each in apart)
    details = f"{len(apart)} crops: largest mean {mean:.2f} levels, least share within {MOST_LEVELS}: {within:.5f}"
    return Check(name=name, passed=all(each.small for each in apart), details=details)


def _searched(messages: Any) -> list[FrameTask]:
    return [message for message in messages if isinstance(message, FrameTask) and message.small is not None]


def checks(models: Sequence[str]) -> list[Check]:
    """Run all checks; one that raises has failed, and the others are still run."""
    wanted: dict[str, Callable[[], Check]] = {"tests marked gpu": gpu_tests}
    for model in models:
        wanted[f"scores of {model}"] = partial(scores_agree, model)
        for example in DECODABLE:
            wanted[f"crops of {model} from {example}"] = partial(crops_agree, model, example)
    return [_guarded(name, check) for name, check in wanted.items()]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(name=name, passed=False, details=repr(error))
