"""Checks and measurements of scanning on a GPU, in steps; gpu_order.md has the order to take them in.

    python -m benchmarks.gpu STEP ... --json FILE --footage DIR
    python -m benchmarks.gpu report FILE ...                        judges and prints what several commands wrote
    python -m benchmarks.gpu decode parts scan --device cpu --small     the same program where there is no GPU

Steps: `footage` makes the videos, and needs no GPU. `look` runs `deepscan doctor` and compares NVDEC's frames with the
CPU's. `tests` runs the tests that need a GPU, and those of the kernels under compute-sanitizer. `scores` compares
scores and crops with those of the CPU. `decode` decodes and drops frames: on processors, NVDEC, both in separate
processes. `parts` runs the stages alone on held frames. `backends` runs the detectors alone. `scan` scans ever more
files until that takes a minute after the last worker became ready. `authors` works as the authors' scripts do, see
`gpu_reference`, and scans with their sampling.

FILE is written after every check and every run; what fails is named there, and the rest goes on. Models may be paths of
exported artifacts; a detector without weights gets random ones. The exit code is 0 if everything passed, 3 without a
GPU, else 1. Targets are for an H200 with 16 processors, and judged on a GPU only.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from benchmarks.footage import SIZES
from benchmarks.gpu_check import DECODABLE, crops_agree, gpu_tests, look, scores_agree
from benchmarks.gpu_footage import ENCODERS, Footage, make_footage
from benchmarks.gpu_report import Check, Figure, Report, as_text, judged
from benchmarks.gpu_works import (
    Effort,
    Job,
    Measuring,
    Model,
    backends,
    decoding,
    references,
    resolve_model,
    scanning,
    stages,
)
from deepscan.runtime.system.machine import Device, environment, nvidia_gpus

STEPS: Final = ("footage", "look", "tests", "scores", "decode", "parts", "backends", "scan", "authors")
ON_GPU_ONLY: Final = ("look", "tests", "scores")
WITHOUT_FOOTAGE: Final = ("look", "tests")
WITHOUT_MODELS: Final = (*WITHOUT_FOOTAGE, "footage", "decode")
REPORT: Final = "report"
MODELS: Final = "lite,altfreezing"
FRAMES: Final = 300
MINUTES: Final = 9.0  # so that a command ends, with all it found, before one that is cut off after ten
# What `--small` measures: two short files, and no run is too short.
SMALL_FRAMES: Final = 20
SMALL: Final = Effort(files=2, rounds=1, scan_seconds=0.0, part_seconds=0.0)
P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("benchmarks.gpu")  # also where this module is the program


@dataclass(eq=False)
class Record:
    """What a command finds, written to a file whenever something is added."""

    path: Path | None
    command: str
    device: Device
    untrained: tuple[str, ...] = ()
    checks: list[Check] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def write(self, *, complete: bool = False) -> Report:
        """Return the report, and write it if there is a file."""
        report = Report(
            complete=complete,
            command=self.command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=environment(),
            device=self.device,
            untrained=self.untrained,
            checks=tuple(self.checks),
            figures=tuple(self.figures),
            failures=tuple(self.failures),
        )
        if self.path is not None:
            self.path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        return report

    def tried(self, name: str, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T | None:
        """Return the result of some work; if it raises, that is one more failure."""
        try:
            return work(*arguments, **keywords)
        except (Exception, SystemExit) as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
            log.warning("%s", self.failures[-1])
            return None
        finally:
            self.write()

    def add(self, found: Iterable[Check | Figure | str]) -> None:
        """Add checks, figures, and failures in words, as they come."""
        for each in found:
            if isinstance(each, Check):
                log.info("%s: %s", "passed" if each.passed else "FAILED", each.name)
                self.checks.append(each)
            elif isinstance(each, Figure):
                log.info("%s: %.0f frames/s", each.title, each.rate)
                self.figures.append(each)
            else:
                log.warning("%s", each)
                self.failures.append(each)
            self.write()


def comparisons(
    model: Model, footage: Sequence[Footage], ends: float, traces: Path | None
) -> Iterator[tuple[str, Callable[[], Check]]]:
    """Yield the comparisons of a detector's scores and crops with those of the CPU, with their titles."""
    trace = traces.with_suffix(f".{model.title.replace(' ', '-')}.trace.json") if traces is not None else None
    for videos in footage:
        about = f"scores of {model.title}, {videos.size} {videos.codec}"
        yield about, partial(scores_agree, model.name, videos, trace=trace, ends=ends)
    for path in (*DECODABLE, *(videos.videos[0] for videos in footage)):
        yield f"crops of {model.title} from {path.name}", partial(crops_agree, model.name, path)


def jobs(
    steps: Sequence[str], models: Sequence[Model], footage: Sequence[Footage], device: Device, effort: Effort
) -> Iterator[Job]:
    """Yield the measurements of the steps that are made in turns."""
    for videos in footage:
        if "decode" in steps:
            yield from decoding(videos, device, effort)
        for number, model in enumerate(models):
            if "parts" in steps and videos.codec == "h264":  # frames are the same whatever they were decoded from
                yield from stages(videos, model, device, effort, detect=number == 0)
            if "scan" in steps:
                yield scanning(videos, model, "full", device, effort)
            if "authors" in steps:
                yield from references(videos, model, device)
                if model.frames > 1:
                    yield scanning(videos, model, "paper", device, effort)


def take(options: argparse.Namespace, command: str, ends: float) -> Report:
    """Take the steps, in the order of `STEPS`."""
    steps, device = options.steps, options.device
    record = Record(options.json, command, device)
    effort = replace(options.effort, ends=ends, jobs=options.jobs)
    models: list[Model] = []
    for name in options.models.split(",") if set(steps) - set(WITHOUT_MODELS) else ():
        model = record.tried(f"weights of {name}", resolve_model, name)
        models += [model] if model is not None else []
    record.untrained = tuple(model.title for model in models if not model.trained)
    with tempfile.TemporaryDirectory() as scratch:
        folder, footage = options.footage or Path(scratch), []
        wanted = [(size, codec) for size in options.sizes.split(",") for codec in options.codecs.split(",")]
        for size, codec in wanted if set(steps) - set(WITHOUT_FOOTAGE) else ():
            log.info("footage: %s %s", size, codec)
            about = f"footage {size} {codec}"
            made = record.tried(about, make_footage, folder, size=size, codec=codec, frames=options.frames)
            footage += [made] if made is not None else []
        if "look" in steps:
            record.tried("look", lambda: record.add(look(ends)))
        if "tests" in steps:
            record.tried("tests", lambda: record.add(gpu_tests(ends)))
        for model in models if "scores" in steps else ():
            for about, compare in comparisons(model, footage, ends, options.json):
                check = record.tried(about, compare)
                record.add([check] if check is not None else [])
        for model in models if "backends" in steps and footage else ():
            record.tried(f"backends of {model.title}", record.add, backends(footage[0], model, device, effort))
        measuring = Measuring(list(jobs(steps, models, footage, device, effort)), ends)
        before = list(record.figures)
        for figures in measuring.run():
            record.figures = [*before, *figures]
            record.write()
        record.failures += measuring.failures
    return record.write(complete=True)


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    shown = logging.getLogger("benchmarks")
    shown.handlers = [logging.StreamHandler()]
    shown.setLevel(logging.INFO)
    if given[:1] == [REPORT]:
        reports = [msgspec.json.decode(Path(path).read_bytes(), type=Report) for path in given[1:]]
        return _printed(reports)
    options = _parsed(given)
    if options.device == "cuda" and set(options.steps) != {"footage"} and not nvidia_gpus():
        print(
            "No NVIDIA GPU is here: `deepscan doctor` says more; --device cpu tries what needs none.", file=sys.stderr
        )
        return 3
    ends = time.monotonic() + 60 * options.minutes
    return _printed([take(options, shlex.join(["python", "-m", "benchmarks.gpu", *given]), ends)])


def _printed(reports: Sequence[Report]) -> int:
    print(as_text(reports))
    return 0 if reports and all(check.passed for check in judged(reports)) else 1


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--models", default=MODELS, help="names or paths, with commas; by default %(default)s")
    parser.add_argument("--sizes", default="", help=f"with commas, among {', '.join(SIZES)}; by default 1080p")
    parser.add_argument("--codecs", default="h264", help=f"with commas, among {', '.join(ENCODERS)}; by default h264")
    parser.add_argument("--footage", metavar="DIR", type=Path, help="where the videos are kept; by default nowhere")
    parser.add_argument("--files", type=int, default=Effort.files, help="of the shortest scan")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="of what is short")
    parser.add_argument("--seconds", type=float, default=Effort.scan_seconds, help="least time of a scan that counts")
    parser.add_argument(
        "--jobs", type=int, help="videos that each worker decodes at once; by default as `deepscan scan`"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after these nothing is begun")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a few short videos in 360p, to try the program")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args(given)
    options.sizes = options.sizes or ("360p" if options.small else "1080p")
    unknown = {*options.sizes.split(",")} - {*SIZES} | {*options.codecs.split(",")} - {*ENCODERS}
    if unknown or options.rounds < 1 or options.files < 1:
        parser.error("sizes and codecs must be known ones; there is at least one round and one file")
    options.effort = SMALL if options.small else Effort(options.files, options.rounds, options.seconds)
    options.frames = SMALL_FRAMES if options.small else FRAMES
    if options.device == "cpu" and set(options.steps) & set(ON_GPU_ONLY):
        parser.error(f"{', '.join(ON_GPU_ONLY)} compare a GPU with the CPU: leave them out, or --device cpu")
    return options


if __name__ == "__main__":
    sys.exit(main())
