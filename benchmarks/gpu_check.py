"""Checks of scanning on a GPU: what the machine has, the tests that need a GPU, and agreement with scans on the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import deepscan
from benchmarks.footage import EXAMPLES
from benchmarks.gpu_footage import Footage
from benchmarks.gpu_report import Check
from benchmarks.gpu_scan import scanned
from benchmarks.gpu_stages import worker_pipeline
from benchmarks.gpu_works import FILES
from deepscan.options import DecoderChoice
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.cuda.device import DeviceArray
from deepscan.runtime.faces.cropping import crop_specs_for, piece_of
from deepscan.runtime.faces.detections import Detection
from deepscan.runtime.media.device_work import DevicePicture
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.pipeline.stages import FacesStage
from deepscan.runtime.system.machine import Device

MOST_MEAN_LEVELS: Final = 2.0
MOST_LEVELS: Final = 8
SHARE_WITHIN: Final = 0.999
MOST_SCORE_DIFFERENCE: Final = 0.01
TAIL_CHARACTERS: Final = 4000
ROOT: Final = Path(__file__).parent.parent
DOCTOR: Final = ("-c", "from deepscan.cli.main import main; main()", "doctor")
# What other versions of packages warn about is no failure here.
GPU_TESTS: Final = ("-m", "pytest", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider")
NVDEC_TESTS: Final = ("tests/runtime/cuda/test_nvdec.py", "tests/runtime/cuda/test_nvdec_frames.py")
KERNEL_TESTS: Final = ("tests/runtime/cuda/test_kernels.py",)
SANITIZER: Final = "compute-sanitizer"
FAULT: Final = 9  # exit code of the sanitizer for what it found
# 8 bits and 10 bits in 4:2:0, which every NVDEC that deepscan uses decodes.
DECODABLE: Final = (EXAMPLES / "astronaut_h264.mp4", EXAMPLES / "phone_portrait_hevc.mp4")


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


def look(ends: float) -> Iterator[Check]:
    """Check that deepscan finds the GPU, and that NVDEC's frames are those of the CPU."""
    yield command_check("doctor", [sys.executable, *DOCTOR], ends, wanted="Scans run on: CUDA")
    yield command_check("NVDEC's frames", [sys.executable, *GPU_TESTS, "-x", *NVDEC_TESTS], ends)


def gpu_tests(ends: float) -> Iterator[Check]:
    """Run the tests that need a GPU; those of TensorRT build engines, which takes long, and are left out.

    The kernels' tests are run again under NVIDIA's checker of memory accesses.
    """
    python = [sys.executable, *GPU_TESTS]
    yield command_check("tests marked gpu", [*python, "tests/runtime", "-k", "not tensorrt"], ends)
    checker = shutil.which(SANITIZER)
    name = f"kernels under {SANITIZER}"
    if checker is None:
        yield Check(name=name, passed=False, details="it is not on PATH")
    else:
        yield command_check(name, [checker, "--error-exitcode", str(FAULT), *python, *KERNEL_TESTS], ends)


def command_check(name: str, command: Sequence[str], ends: float, *, wanted: str = "") -> Check:
    """Run a command from the repository; what it prints must have `wanted` in it.

    A test that would be skipped for lack of a GPU fails. A command that is not done when the time is up has failed.
    """
    environment = os.environ | {"DEEPSCAN_REQUIRE_GPU": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(1.0, ends - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return Check(name=name, passed=False, details=f"the time was up: {_tail(error.output or b'')}")
    said = _tail(run.stdout)
    return Check(name=name, passed=run.returncode == 0 and wanted in said, details=said)


def _tail(output: bytes) -> str:
    return output.decode(errors="replace").strip()[-TAIL_CHARACTERS:]


def scores_agree(
    model: str,
    footage: Footage,
    *,
    device: Device = "cuda",
    files: int = FILES,
    examples: Sequence[Path] = DECODABLE,
    trace: Path | None = None,
    ends: float,
) -> Check:
    """Scan many files on NVDEC, and compare every score with that of the CPU.

    It passes if every file has the CPU's status and its score within 0.01, NVDEC decoded every file, every result was
    computed on the GPU, and no worker ended early: what takes over from a GPU gives the right scores, too.

    Args:
        model: detector.
        footage: videos; the examples that NVDEC decodes are scanned besides.
        device: the CPU compares with itself, to try the check.
        files: number of files of the footage.
        examples: further videos that NVDEC decodes.
        trace: file for a trace.
        ends: time by `time.monotonic` at which it is given up.
    """
    known = [*footage.videos, *examples]
    expected = sorted(
        deepscan.scan(known, model=model, device="cpu", backend="onnxruntime"), key=lambda result: result.row
    )
    paths = [*footage.files(files), *examples]
    decoder: DecoderChoice = "nvdec" if device == "cuda" else "cpu"
    sample, results = scanned(paths, model=model, device=device, decoder=decoder, trace=trace, ends=ends)
    assert sample.scan is not None
    faults = sample.scan.faults(device, len(paths) if device == "cuda" else None)
    largest = 0.0
    for number, result in enumerate(results):
        same = number % len(footage.videos) if number < files else number - files + len(footage.videos)
        ours, theirs = expected[same].score, result.score
        if expected[same].status != result.status or ours is None or theirs is None:
            faults.append(f"{result.path}: {expected[same].status} {ours}, {result.status} {theirs} {result.reason}")
        else:
            largest = max(largest, abs(ours - theirs))
    if largest > MOST_SCORE_DIFFERENCE:
        faults.append(f"scores differ by up to {largest:.4f}")
    rates = f"{sample.rate:,.0f} frames/s after {sample.scan.start_seconds:.0f} s; largest difference {largest:.2g}"
    stages = ", ".join(f"{stage.name} {stage.busy_share:.0%}" for stage in sample.scan.stages)
    details = f"{len(results)} files, {sample.scan.by_nvdec} by NVDEC; {rates}; busy: {stages}"
    return Check(name=f"scores of {model}", passed=not faults, details="; ".join([*faults, details]))


def crops_agree(model: str, path: Path) -> Check:
    """Cut the same faces of the same frames from planes of both, and compare every crop."""
    (cut,) = crop_specs_for([load_artifact(model).manifest.spec], whole_pictures=False)
    cpu = worker_pipeline(model, device="cpu", backend="onnxruntime", precision="fp32")
    gpu = worker_pipeline(model, device="cuda")
    faces: FacesStage = cpu.stages[0].function  # type: ignore[assignment]
    name = f"crops of {model} from {path.name}"
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
