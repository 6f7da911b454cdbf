"""Cost of evaluating and calibrating: wall time, processor time and memory for many videos.

    python -m benchmarks.evaluate [--rounds 3]

Scores are made up: each class has normal log-odds, videos come in groups of 4, with methods, codecs and sizes. Every
measurement runs in a process of its own; figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.measure import machine

HERE: Final = Path(__file__).parents[1]
GROUP: Final = 4
DETECTORS: Final = ("one", "two", "three")
CODECS: Final = ("h264", "hevc", "vp9", "av1")
SIZES: Final = ((640, 360), (1280, 720), (1920, 1080))
# The library alone, from results in memory; prints seconds by the clock and of the processor.
LIBRARY: Final = """
import resource, sys, time
from deepscan.evaluation.evaluate import evaluate_labeled
from deepscan.evaluation.labels import labeled_results
match = labeled_results("results.jsonl", "truth.csv")
began, used = time.perf_counter(), time.process_time()
evaluate_labeled(match, by=None if sys.argv[1] == "parts" else ())
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - began, time.process_time() - used, memory)
"""
# A command, as a user gives it.
COMMAND: Final = """
import resource, sys, time
from deepscan.cli.running import run
began = time.perf_counter()
code = run(sys.argv[1:])
use = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - began, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, file=sys.stderr)
sys.exit(code)
"""


def write_inputs(folder: Path, videos: int, detectors: int) -> None:
    """Write results.jsonl and truth.csv: half of the groups are fake, with one of four methods."""
    random = np.random.default_rng(0)
    groups = np.arange(videos) // GROUP
    fake = groups % 2 == 0
    hard = random.normal(size=groups.max() + 1)[groups] * 0.5  # what the videos of a group have in common
    with open(folder / "results.jsonl", "w") as file:
        for name in DETECTORS[:detectors]:
            odds = random.normal(size=videos) + hard + np.where(fake, 1.0, -1.0)
            for number, score in enumerate((1 / (1 + np.exp(-odds))).tolist()):
                file.write(json.dumps(record(number, name, score)) + "\n")
    with open(folder / "truth.csv", "w") as file:
        file.write("path,label,method,dataset,group\n")
        for number in range(videos):
            label, method = ("fake", f"m{groups[number] // 2 % 4}") if fake[number] else ("real", "")
            file.write(f"{number}.mp4,{label},{method},d{groups[number] % 3},g{groups[number]}\n")


def record(number: int, model: str, score: float) -> dict[str, object]:
    """Return a record of the JSONL."""
    width, height = SIZES[number % len(SIZES)]
    return {
        "path": f"/videos/{number}.mp4",
        "status": "scored",
        "reason": "",
        "score": score,
        "label": "fake" if score >= 0.85 else "real" if score < 0.5 else "uncertain",
        "model": model,
        "faces": 1,
        "tracks": 1,
        "clips": 16,
        "frames": 16,
        "duration_seconds": float(number % 90),
        "width": width,
        "height": height,
        "codec": CODECS[number % len(CODECS)],
        "peak_start_seconds": 1.0,
        "peak_end_seconds": 2.0,
        "peak_score": score,
        "backend": "onnxruntime-cpu",
        "precision": "fp32",
        "weights_sha256": "ab" * 32,
        "settings_sha256": "cd" * 32,
        "elapsed_seconds": 1.0,
        "real_below": 0.5,
        "fake_from": 0.85,
        "content": f"fast:{100000 + number}:{number:032x}",
        "track_details": [],
    }


def measured(folder: Path, program: str, arguments: list[str], rounds: int) -> tuple[float, float, float]:
    """Return the medians of wall seconds, processor seconds and peak memory in MiB."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "80"}
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = (done.stdout if program is LIBRARY else done.stderr).splitlines()
        found.append([float(value) for value in lines[-1].split()])
    wall, processor, memory = (statistics.median(column) for column in zip(*found, strict=True))
    return wall, processor, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(machine())
    print("| | wall s | processor s | peak MiB |\n|---|---|---|---|")
    labels = ["results.jsonl", "--labels", "truth.csv"]
    for videos, detectors, cases in (
        (
            10_000,
            3,
            {
                "library, overall and pairs": (LIBRARY, ["overall"]),
                "library, with all parts": (LIBRARY, ["parts"]),
                "`deepscan evaluate`": (COMMAND, ["evaluate", *labels]),
                "`deepscan calibrate --model one`": (
                    COMMAND,
                    ["calibrate", *labels, "--model", "one", "--max-fpr", "0.05"],
                ),
                "`deepscan calibrate --fuse`": (COMMAND, ["calibrate", *labels, "--fuse", "--out", "fusion.json"]),
            },
        ),
        (100_000, 1, {"`deepscan evaluate`": (COMMAND, ["evaluate", *labels])}),
    ):
        with tempfile.TemporaryDirectory() as place:
            write_inputs(Path(place), videos, detectors)
            for title, (program, arguments) in cases.items():
                wall, processor, memory = measured(Path(place), program, arguments, rounds)
                what = f"{videos:,} videos, {detectors} detector{'s' * (detectors > 1)}: {title}"
                print(f"| {what} | {wall:.1f} | {processor:.1f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
