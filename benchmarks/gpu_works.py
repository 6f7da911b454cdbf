"""Measurements of the GPU benchmark: the videos, and the work on them, in turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import deepscan
from benchmarks.footage import SIZES
from benchmarks.gpu_decode import decoded, decoder_groups
from benchmarks.gpu_footage import ENCODERS, Footage, Shape, make_footage
from benchmarks.gpu_reference import AuthorsWay, network_of
from benchmarks.gpu_report import Figure, Sample, StageFigure, rate_of
from benchmarks.gpu_stages import PARTS, StagesAlone
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.system.machine import Device, cpu_count

NAMES: Final = ("decode", *PARTS, "scan", "reference")
# Files and frames of each; short ones are long enough for windows at stride 1.
SHAPES: Final[dict[Shape, tuple[int, int]]] = {"short": (64, 96), "long": (8, 960)}
SMALL: Final = (2, 20)


@dataclass(frozen=True)
class Job:
    """One measurement to make: its name, and a function that does the work once."""

    part: str
    variant: str
    footage: Footage
    model: str | None
    run: Callable[[], Sample]


def decoding(footage: Footage, device: Device) -> Iterator[Job]:
    """Yield the ways to decode a folder."""
    for variant in ("cpu", "nvdec", "both") if device == "cuda" else ("cpu",):
        chosen = decoder_groups(variant, processors=cpu_count(), files=footage.files)

        def run(chosen: Any = chosen) -> Sample:
            frames, seconds = decoded(footage.paths(), chosen)
            return Sample(frames=frames, seconds=seconds)

        yield Job("decode", variant, footage, None, run)


def stages(footage: Footage, model: str, parts: Sequence[str], device: Device) -> Iterator[Job]:
    """Yield the stages that work on decoded frames; the video is decoded, and held, when the first one runs."""
    held: list[StagesAlone] = []
    for part in parts:

        def run(part: str = part) -> Sample:
            if not held:
                held.append(StagesAlone(footage.paths()[0], model, device=device))
            return Sample(frames=held[0].frames, seconds=held[0].seconds(part))

        yield Job(part, device, footage, None if part == "detect" else model, run)


def scanning(footage: Footage, model: str, variant: str, device: Device) -> Job:
    """Return a whole scan of a folder."""

    def run() -> Sample:
        scan = deepscan.scan(footage.folder, model=model, device=device, sampling=variant)  # type: ignore[arg-type]
        started = time.perf_counter()
        results = list(scan)
        seconds = time.perf_counter() - started
        figures = tuple(
            StageFigure(
                name=times.name,
                threads=times.threads,
                busy_seconds=times.busy_seconds,
                waiting_seconds=times.waiting_seconds,
                blocked_seconds=times.blocked_seconds,
                busy_share=times.busy_share,
            )
            for times in scan.stage_times()
        )
        return Sample(
            frames=sum(result.frames for result in results),
            seconds=seconds,
            unscored=sum(result.status != "scored" for result in results),
            stages=figures,
        )

    return Job("scan", variant, footage, model, run)


def references(footage: Footage, model: str, device: Device) -> Iterator[Job]:
    """Yield the authors' way, on one file of a folder."""
    spec, network = network_of(model)
    way = AuthorsWay(spec, network, device=device)
    for stride in (1, spec.frames) if spec.frames > 1 else (1,):

        def run(stride: int = stride) -> Sample:
            started = time.perf_counter()
            outcome = way.score(footage.paths()[0], stride=stride)
            seconds = time.perf_counter() - started
            return Sample(frames=outcome.frames, seconds=seconds, unscored=int(outcome.score is None))

        yield Job("reference", f"stride {stride}", footage, model, run)


def works(folder: Path, models: Sequence[str], names: Sequence[str], device: Device, *, small: bool) -> Iterator[Job]:
    """Make the videos, and yield the measurements to make on them."""
    shapes: tuple[Shape, ...] = ("short",) if small else ("short", "long")
    for size in ("360p",) if small else SIZES:
        for codec in ENCODERS:
            for shape in shapes:
                files, frames = SMALL if small else SHAPES[shape]
                say(f"encoding {size} {codec}, {frames} frames")
                footage = make_footage(folder, size=size, codec=codec, shape=shape, files=files, frames_each=frames)
                if "decode" in names:
                    yield from decoding(footage, device)
                for model in models:
                    if "scan" in names:
                        yield scanning(footage, model, "full", device)
                    if codec != "h264" or shape != "short":
                        continue
                    # Frames and crops are the same whatever they were decoded from, and the faces whatever the model.
                    wanted = [name for name in PARTS if name in names and (name != "detect" or model == models[0])]
                    yield from stages(footage, model, wanted, device)
                    if "scan" in names and load_artifact(model).manifest.spec.kind == "clip":
                        yield scanning(footage, model, "paper", device)
                    if "reference" in names:
                        yield from references(footage, model, device)


class Measuring:
    """Does everything once to warm up, then in turns.

    What raises is left out from then on, with the reason: one failure must not cost the other measurements.

    Args:
        chosen: what to measure.
        rounds: besides the one to warm up.
        minutes: when these have passed, nothing more is begun.
    """

    def __init__(self, chosen: Sequence[Job], *, rounds: int, minutes: float) -> None:
        self._samples: dict[int, list[Sample]] = {number: [] for number in range(len(chosen))}
        self._chosen = chosen
        self._rounds = rounds
        self._end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def run(self) -> Iterator[list[Figure]]:
        """Yield the figures so far, after each round."""
        for turn in range(self._rounds + 1):
            for number in list(self._samples):
                if time.monotonic() > self._end:
                    self.left_out.append(f"part of round {turn} (0 warms up) and what comes after it: the time is up")
                    yield self._figures()
                    return
                self._measure(number, turn)
            if turn:
                yield self._figures()

    def _measure(self, number: int, turn: int) -> None:
        work = self._chosen[number]
        about = f"{work.part} {work.variant} {work.model or ''} {work.footage.title}"
        try:
            sample = work.run()
        except (Exception, SystemExit) as error:
            del self._samples[number]
            self.left_out.append(f"{about}: {error!r}")
            say(self.left_out[-1])
            return
        say(f"{turn or 'warming up'}: {about}: {sample.frames / sample.seconds:.0f} frames/s")
        if turn:
            self._samples[number].append(sample)

    def _figures(self) -> list[Figure]:
        return [_figure(self._chosen[number], samples) for number, samples in self._samples.items() if samples]


def _figure(work: Job, samples: Sequence[Sample]) -> Figure:
    return Figure(
        part=work.part,
        variant=work.variant,
        size=work.footage.size,
        codec=work.footage.codec,
        shape=work.footage.shape,
        files=work.footage.title,
        model=work.model,
        samples=tuple(samples),
        frames_per_second=rate_of(samples),
    )


def say(line: str) -> None:
    """Print the progress on stderr."""
    print(line, file=sys.stderr, flush=True)
