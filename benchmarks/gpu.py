"""All measurements of scanning on a GPU in one call: correctness, speed and bottlenecks.

    python -m benchmarks.gpu --check --all --json FILE
    python -m benchmarks.gpu --only decode,scan --models lite
    python -m benchmarks.gpu --device cpu --all --small        the same program where there is no GPU

`--check` runs the tests that need a GPU, and compares scores and crops of the examples with those of the CPU.

Parts: `decode` (frames decoded and dropped: processors, NVDEC, both in separate processes), `detect`, `preprocess`
and `infer` (the stages of a scan alone, on held frames of one short H.264 video), `scan` (`deepscan.scan` of the
folder; `paper` is the authors' sampling, stride 1), and `reference` (the authors' way of working, see
`gpu_reference`, on one file of the same folder). All rates are frames of video per second. Rounds of everything are
interleaved; the first one warms up. FILE is written after the checks and after every round, so that little is lost
where the time is short; what fails is named there, and the rest goes on. The exit code is 0 where nothing failed, 3
without a GPU, else 1. Random weights are added to the store for detectors that have none there.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.gpu_check import checks
from benchmarks.gpu_report import Figure, Report, as_text, ratios
from benchmarks.gpu_works import NAMES, Measuring, say, works
from deepscan.errors import ModelError
from deepscan.export.install import add_random_weights
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.system.machine import Device, environment, installed_version, nvidia_gpus

MODELS: Final = ("lite", "altfreezing", "ftcn")
ROUNDS: Final = 3
# Versions that count here, besides those of `environment`.
PACKAGES: Final = ("av", "opencv-python-headless", "pillow", "cuda-python")


def trained(models: Sequence[str]) -> dict[str, bool]:
    """Add random weights where there are none; say which detectors have trained ones."""
    found = {}
    for model in models:
        try:
            artifact = load_artifact(model)
        except ModelError:
            add_random_weights(model, seed=0)
            artifact = load_artifact(model)
        found[model] = artifact.manifest.trained
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="tests that need a GPU, agreement with the CPU")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="measure every part")
    which.add_argument("--only", metavar="NAMES", default="", help=f"with commas, among {', '.join(NAMES)}")
    parser.add_argument("--models", default="", help=f"with commas; by default {','.join(MODELS)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a few short videos in 360p, and lite, to try the program")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="after these no measurement is begun")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args(arguments)
    names = NAMES if options.all else tuple(filter(None, options.only.split(",")))
    models = tuple(filter(None, options.models.split(","))) or (MODELS[:1] if options.small else MODELS)
    if set(names) - set(NAMES) or options.rounds < 1 or not (names or options.check):
        parser.error(f"give --check, --all or --only with {', '.join(NAMES)}; at least one round")
    if options.device == "cuda" and not nvidia_gpus():
        say("No NVIDIA GPU is here: `deepscan doctor` says more; --device cpu measures what needs none.")
        return 3
    device: Device = options.device
    having = trained(models)
    left_out = [] if device == "cuda" else ["decoding on NVDEC: --device cpu"]
    if options.check and device == "cpu":
        left_out.append("the checks: they compare a GPU with the CPU, and --device is cpu")
    checked = checks(models) if options.check and device == "cuda" else []
    command = shlex.join(["python", "-m", "benchmarks.gpu", *(sys.argv[1:] if arguments is None else arguments)])

    def written(figures: Sequence[Figure], missing: Sequence[str], *, complete: bool) -> Report:
        report = Report(
            complete=complete,
            command=command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=environment(),
            packages={name: version for name in PACKAGES if (version := installed_version(name))},
            device=device,
            rounds=options.rounds,
            trained=having,
            checks=tuple(checked),
            figures=tuple(figures),
            ratios=tuple(ratios(figures)),
            left_out=(*left_out, *missing),
        )
        if options.json is not None:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        return report

    figures: Sequence[Figure] = ()
    written(figures, (), complete=False)
    with tempfile.TemporaryDirectory() as scratch:
        chosen = list(works(Path(scratch), models, names, device, small=options.small))
        measuring = Measuring(chosen, rounds=options.rounds, minutes=options.minutes)
        for figures in measuring.run():
            written(figures, measuring.left_out, complete=False)
    print(as_text(written(figures, measuring.left_out, complete=True)))
    return 0 if all(check.passed for check in checked) and len(figures) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
