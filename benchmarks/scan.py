"""Overhead of a scan beyond its stages, and its memory.

    python -m benchmarks.scan                speed: stages alone and together, 360p and 1080p
    python -m benchmarks.scan --memory       memory: 10 and 200 videos, a short and a long one, at 1080p

Stages alone: `decode` decodes, shrinks and marks frames; `faces` gets those frames and detects, tracks and crops;
`infer` gets those crops and classifies. Together: the pipeline of a worker over four such videos, in this process.
Rounds are interleaved, medians are reported; models are loaded and one round is run beforehand.

Memory is that of the command, with its worker.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.footage import SIZES, copies, make_video
from benchmarks.measure import Cost, cost_of, machine
from benchmarks.processes import memory_watched
from deepscan.export.bench.graph_costs import flop_of
from deepscan.export.bench.matmul_rate import SIDES, matmul_rate
from deepscan.options import DETECT_EVERY, ScanOptions
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.faces.cropping import crop_specs_for
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.following import FaceFollower
from deepscan.runtime.faces.tracking import Tracker
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.sampling import Sampling
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.pipeline import Progress
from deepscan.runtime.pipeline.pipeline_scan import MAX_GAP_SECONDS, ON_CPU, Decoders, PipelineScan
from deepscan.runtime.pipeline.scoring import ScoringSettings
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.pipeline.stages import DecodeStage, FacesStage
from deepscan.runtime.system.machine import cpu_count

FRAMES = 100
ROUNDS = 7
VIDEOS_PER_SCAN = 4
SAMPLE_SECONDS = 0.05
DEEPSCAN = str(Path(sys.executable).with_name("deepscan"))
STAGES = ("decode", "faces", "infer")


class Stages:
    """The three stages of one scan, to be run one after the other on held messages."""

    def __init__(self) -> None:
        artifact = load_artifact("lite")
        spec = artifact.manifest.spec
        sampling = Sampling("all", detect_every=DETECT_EVERY)
        self._decode = DecodeStage(partial(open_input, threads=1), sampling, detection_side=DETECTION_SIDE)
        (cut,) = crop_specs_for([spec], whole_pictures=False)
        self._faces = partial(
            FacesStage,
            YuNet(device="cpu", threads=1),
            lambda job: [FaceFollower(job, cut, Tracker(max_gap_seconds=MAX_GAP_SECONDS))],
            progress=Progress(),
        )
        settings = ScoringSettings(
            model=spec.name,
            spec=spec,
            aggregate="max",
            decisive_frames=1,
            sampling=sampling,
            mirror=spec.mirror,
            weights_sha256="",
            settings_sha256="",
        )
        backend = OnnxRuntimeBackend(artifact, device="cpu", threads=cpu_count(), precision="fp32")
        self._infer = partial(InferStage, [(backend, settings)], progress=Progress())
        self._settings = resolve_settings(ScanOptions())
        self._artifact = artifact

    def together(self, videos: list[Path]) -> PipelineScan:
        """Return a scan of videos by one pipeline, as a worker has it."""
        jobs = [VideoJob(number, str(path)) for number, path in enumerate(videos)]
        backend = OnnxRuntimeBackend(self._artifact, device="cpu", threads=cpu_count(), precision="fp32")
        decoders = Decoders(min(cpu_count(), len(videos)), threads=1)
        return PipelineScan(
            jobs,
            settings=self._settings,
            face_detector=self._settings.load_face_detector("cpu"),
            backends=[backend],
            decoders=decoders,
            bounds=ON_CPU,
        )

    def costs(self, video: Path) -> dict[str, Cost]:
        """Run each stage alone over a whole video."""
        looks: list[Any] = []
        crops: list[Any] = []
        faces, infer = self._faces(), self._infer()
        job = VideoJob(0, str(video))
        return {
            "decode": cost_of(lambda: looks.extend(self._decode(job))),
            "faces": cost_of(lambda: crops.extend(_batched(faces, looks, ON_CPU.frames_at_once))),
            "infer": cost_of(lambda: list(_batched(infer, crops, ON_CPU.crops_at_once))),
        }


def _batched(stage: Any, messages: list[Any], size: int) -> Any:
    for start in range(0, len(messages), size):
        yield from stage(messages[start : start + size])


def measure_speed(rounds: int) -> None:
    """Print a table per size: cost per frame of each stage alone and of the scan, and their ratios."""
    print(machine())
    stages = Stages()
    with tempfile.TemporaryDirectory() as scratch:
        for name, size in SIZES.items():
            video = make_video(Path(scratch) / f"{name}.mp4", size, FRAMES)
            folder = copies(video, Path(scratch) / name, VIDEOS_PER_SCAN)
            _print_speed(name, *_rounds(stages, video, folder, rounds))


def _rounds(stages: Stages, video: Path, folder: Path, rounds: int) -> tuple[dict[str, list[Cost]], int]:
    costs: dict[str, list[Cost]] = defaultdict(list)
    for number in range(rounds + 1):
        alone = stages.costs(video)
        scan = stages.together(sorted(folder.iterdir()))
        alone["scan"] = cost_of(lambda scan=scan: list(scan))  # type: ignore[misc]
        if number:  # the first round warms up
            for stage, cost in alone.items():
                costs[stage].append(cost)
    return costs, VIDEOS_PER_SCAN * FRAMES


def _print_speed(name: str, costs: dict[str, list[Cost]], scanned: int) -> None:
    print(f"\n{name}, one face, {FRAMES} frames per video; medians of {len(costs['scan'])} rounds (min to max)")
    print(f"{'':8}{'cpu ms/frame':>24}{'frames/s':>12}")
    for stage in (*STAGES, "scan"):
        frames = scanned if stage == "scan" else FRAMES
        cpu = sorted(1000 * cost.cpu_seconds / frames for cost in costs[stage])
        rate = statistics.median(frames / cost.wall_seconds for cost in costs[stage])
        print(f"{stage:8}{statistics.median(cpu):10.2f} ({cpu[0]:.2f} to {cpu[-1]:.2f}){rate:12.0f}")
    together = [
        (costs["scan"][n].cpu_seconds / scanned) / (sum(costs[stage][n].cpu_seconds for stage in STAGES) / FRAMES)
        for n in range(len(costs["scan"]))
    ]
    slowest = [
        max(costs[stage][n].wall_seconds for stage in STAGES) / FRAMES * scanned / costs["scan"][n].wall_seconds
        for n in range(len(costs["scan"]))
    ]
    print(f"processor time, whole scan / sum of its stages alone: {statistics.median(together):.3f}")
    print(f"frames/s, whole scan / slowest stage alone:           {statistics.median(slowest):.3f}")
    _print_yardstick(statistics.median(cost.wall_seconds for cost in costs["infer"]) / FRAMES)


def _print_yardstick(infer_seconds: float) -> None:
    artifact = load_artifact("lite")
    passes = 2 if artifact.manifest.spec.mirror else 1
    work = passes * (flop_of(artifact.model) or 0) / 1e9
    rate = 1e-9 * matmul_rate(device="cpu", precision="fp32", threads=cpu_count(), seconds=2.0, side=SIDES["cpu"])
    milliseconds, reached = 1000 * infer_seconds, work / infer_seconds
    print(f"infer alone, wall: {milliseconds:.1f} ms per face for {work:.2f} GFLOP, {reached:.0f} GFLOP/s")
    print(f"float32 matrix products here: {rate:.0f} GFLOP/s, at which that takes {1000 * work / rate:.1f} ms")


def measure_memory() -> None:
    """Print the peak memory of scans: of their worker, and of that and the command together."""
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        for frames, count in ((50, 10), (50, 200), (500, 1), (5000, 1)):
            video = make_video(Path(scratch) / f"{frames}.mp4", SIZES["1080p"], frames)
            folder = copies(video, Path(scratch) / f"{frames}x{count}", count)
            command = [DEEPSCAN, "scan", str(folder), "--quiet", "--fresh", "--out", f"{scratch}/results.csv"]
            with subprocess.Popen(command) as scan, memory_watched(scan.pid, SAMPLE_SECONDS) as samples:
                scan.wait()
            worker, both = max(each.largest_bytes for each in samples), max(each.total_bytes for each in samples)
            print(f"1080p, {count:3} video(s) of {frames:4} frames: {worker >> 20} MiB, both {both >> 20} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    if chosen.memory:
        measure_memory()
    else:
        measure_speed(chosen.rounds)


if __name__ == "__main__":
    main()
