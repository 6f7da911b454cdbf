"""Startup cost of commands: wall time, processor time, processes and modules.

    python -m benchmarks.startup [--rounds 7] [--against CHECKOUT]

Every command is run in turn, round by round; figures are medians. With `--against`, another checkout of this repository
is measured in the same rounds, with the same packages.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.footage import PORTRAIT
from benchmarks.measure import machine

HERE: Final = Path(__file__).parents[1]
COMMAND: Final = (sys.executable, "-P", "-c", "from deepscan.cli.main import main; main()")
CLIPS: Final = 50
HEAVY: Final = ("av", "cv2", "numpy", "onnx", "onnxruntime", "torch")
COUNTS: Final = "DEEPSCAN_BENCHMARK_COUNTS"
# Python imports this at the start of every process that finds it: each then writes down, at its end, what it imported.
OBSERVER: Final = f"""
import atexit, os, sys

def note():
    worker = any("workers" in argument for argument in sys.orig_argv)
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    with open(os.path.join(os.environ[{COUNTS!r}], str(os.getpid())), "w") as file:
        print("worker" if worker else "command", len(sys.modules), *heavy, file=file)

if {COUNTS!r} in os.environ:
    atexit.register(note)
"""


def run(arguments: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run `deepscan` once; return the seconds by the clock, and of the processor with its workers."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*COMMAND, *arguments], env=dict(environment), capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Traceback" in done.stderr:
        raise RuntimeError(done.stderr)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(folder: Path) -> dict[str, list[str]]:
    """Make the inputs in a folder, and return the commands by what they show."""
    many = folder / "many"
    many.mkdir()
    for number in range(CLIPS):
        copy = Path(shutil.copy(PORTRAIT, many / f"{number:02}.mp4"))
        with open(copy, "ab") as file:
            file.write(bytes([number]))  # no two have the same content
    scan = ["scan", "--fresh", "--quiet", "--device", "cpu", "--backend", "onnxruntime", "--out"]
    return {
        "--help": ["--help"],
        "a known failure": [*scan, str(folder / "failure.csv"), str(folder / "missing.mp4")],
        "one clip": [*scan, str(folder / "one.csv"), str(PORTRAIT)],
        f"{CLIPS} clips": [*scan, str(folder / "many.csv"), "--frames", "4", str(many)],
    }


def imports(arguments: list[str], environment: Mapping[str, str], folder: Path) -> list[str]:
    """Run a command once more, and return what each of its processes imported."""
    observer, counts = folder / "observer", Path(tempfile.mkdtemp(dir=folder))
    observer.mkdir(exist_ok=True)
    (observer / "sitecustomize.py").write_text(OBSERVER)
    path = f"{observer}{os.pathsep}{environment['PYTHONPATH']}"
    run(arguments, {**environment, "PYTHONPATH": path, COUNTS: str(counts)})
    lines = [written.read_text().split() for written in counts.iterdir()]
    return [f"{kind}: {count} modules, with {', '.join(heavy) or 'none'}" for kind, count, *heavy in sorted(lines)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--against", type=Path, help="Another checkout to measure in the same rounds.")
    options = parser.parse_args()
    checkouts = {"here": HERE} | ({"against": options.against.resolve()} if options.against else {})
    environments = {name: {**os.environ, "PYTHONPATH": str(root)} for name, root in checkouts.items()}
    print(machine())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cases = commands(folder)
        runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for what, arguments in cases.items():
                for name, environment in environments.items():
                    runs.setdefault((what, name), []).append(run(arguments, environment))
        for (what, name), found in runs.items():
            wall, cpu = map(statistics.median, zip(*found, strict=True))
            print(f"{what:16} {name:8} {wall:6.2f} s wall  {cpu:6.2f} s processor")
        for what, arguments in cases.items():
            for name, environment in environments.items():
                for line in imports(arguments, environment, folder):
                    print(f"{what:16} {name:8} {line}")


if __name__ == "__main__":
    main()
