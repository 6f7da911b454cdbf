"""Measurements of the GPU benchmark: what is measured, and for how long."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from benchmarks.gpu_decode import DecoderGroup, decoded, decoder_groups
from benchmarks.gpu_footage import Footage
from benchmarks.gpu_reference import AuthorsWay, network_of
from benchmarks.gpu_report import PARTS, Figure, Sample
from benchmarks.gpu_scan import scanned
from benchmarks.gpu_stages import StagesAlone
from deepscan.errors import DeepscanError
from deepscan.export.bench.bench_records import BenchSettings, Failure, Measurement
from deepscan.export.bench.benching import benchmarked, subjects_of
from deepscan.export.install import add_random_weights
from deepscan.options import SamplingMode
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.system.machine import Device, cpu_count

# More decoders than NVDEC has engines are busy with so many files, in every process that a GPU gets.
FILES: Final = 32
DECODE_SECONDS: Final = 5.0
PART_SECONDS: Final = 2.0
BACKEND_SECONDS: Final = 3.0
# A run that was too short is followed by one of at most so many times its work.
MOST_GROWTH: Final = 8.0
MARGIN: Final = 1.2
MOST_SHORT_RUNS: Final = 6
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A detector to measure.

    Attributes:
        name: name or path, as for `load_artifact`.
        title: detector and precision, for the report.
        frames: frames of one item.
        trained: whether its weights are trained.
    """

    name: str
    title: str
    frames: int
    trained: bool


def resolve_model(name: str) -> Model:
    """Load a detector; one without weights gets random ones, which take the same time.

    Raises:
        DeepscanError: the detector cannot be loaded or exported.
    """
    try:
        artifact = load_artifact(name)
    except DeepscanError:
        add_random_weights(name, seed=0)
        artifact = load_artifact(name)
    manifest = artifact.manifest
    return Model(name, f"{manifest.spec.name} {manifest.precision}", manifest.spec.frames, manifest.trained)


@dataclass(frozen=True)
class Job:
    """A measurement to make.

    Attributes:
        part, variant: see `Figure`.
        footage: videos.
        model: detector, if there is one.
        rounds: number of runs that must count.
        seconds: a run that takes less does not count.
        run: does the work so many times over; raises what it likes.
    """

    part: str
    variant: str
    footage: Footage
    model: Model | None
    rounds: int
    seconds: float
    run: Callable[[int], Sample]

    def figure(self, samples: Sequence[Sample]) -> Figure:
        """Return the measurement."""
        return Figure(
            part=self.part,
            variant=self.variant,
            size=self.footage.size,
            codec=self.footage.codec,
            model=self.model.title if self.model is not None else None,
            frames_per_clip=self.model.frames if self.model is not None else 0,
            samples=tuple(samples),
        )


@dataclass(frozen=True)
class Effort:
    """How much work to do.

    Attributes:
        files: number of files of the shortest scan.
        rounds: number of runs of what is short.
        scan_seconds: least time of a scan that counts.
        part_seconds: least time of anything else that counts.
        ends: time by `time.monotonic` after which nothing is begun.
        jobs: number of videos that each worker decodes at once.
    """

    files: int = FILES
    rounds: int = 3
    scan_seconds: float = 60.0
    part_seconds: float = math.inf
    ends: float = math.inf
    jobs: int | None = None


def decoding(footage: Footage, device: Device, effort: Effort) -> Iterator[Job]:
    """Yield the ways to decode."""
    paths = footage.files(effort.files)
    for variant in ("cpu", "nvdec", "both") if device == "cuda" else ("cpu",):
        groups = decoder_groups(variant, processors=cpu_count(), files=len(paths))

        def run(times: int, groups: list[DecoderGroup] = groups) -> Sample:
            frames, seconds = decoded(paths * times, groups)
            return Sample(frames=frames, seconds=seconds)

        yield Job("decode", variant, footage, None, effort.rounds, min(DECODE_SECONDS, effort.part_seconds), run)


def stages(footage: Footage, model: Model, device: Device, effort: Effort, *, detect: bool) -> Iterator[Job]:
    """Yield the stages that work on decoded frames, which are decoded, and held, when the first one runs."""
    held: list[StagesAlone] = []
    for part in PARTS if detect else PARTS[1:]:

        def run(times: int, part: str = part) -> Sample:
            if not held:
                held.append(StagesAlone(footage.videos[: effort.files], model.name, device=device))
            return Sample(frames=held[0].frames * times, seconds=held[0].seconds(part, times))

        about = None if part == "detect" else model  # faces are the same whatever the detector
        yield Job(part, device, footage, about, effort.rounds, min(PART_SECONDS, effort.part_seconds), run)


def scanning(footage: Footage, model: Model, sampling: SamplingMode, device: Device, effort: Effort) -> Job:
    """Return a whole scan of ever more files, until it lasts."""

    def run(times: int) -> Sample:
        paths, jobs, ends = footage.files(effort.files * times), effort.jobs, effort.ends
        return scanned(paths, model=model.name, device=device, sampling=sampling, jobs=jobs, ends=ends)[0]

    return Job("scan", sampling, footage, model, 1, effort.scan_seconds, run)


def references(footage: Footage, model: Model, device: Device) -> Iterator[Job]:
    """Yield the authors' way, on one video."""
    ways: list[AuthorsWay] = []
    for stride in dict.fromkeys((1, model.frames)):

        def run(times: int, stride: int = stride) -> Sample:
            if not ways:
                ways.append(AuthorsWay(*network_of(model.name), device=device))
            started = time.perf_counter()
            outcomes = [ways[0].score(footage.videos[0], stride=stride) for _ in range(times)]
            seconds = time.perf_counter() - started
            unscored = sum(outcome.score is None for outcome in outcomes)
            return Sample(frames=sum(outcome.frames for outcome in outcomes), seconds=seconds, unscored=unscored)

        yield Job("reference", f"stride {stride}", footage, model, 1, 0.0, run)


def backends(footage: Footage, model: Model, device: Device, effort: Effort) -> Iterator[Figure | str]:
    """Measure a detector on every backend as `deepscan bench` does; yield figures, and what failed in words."""
    seconds = min(BACKEND_SECONDS, effort.part_seconds)
    setup = BenchSettings(device=device, threads=cpu_count(), batches=None, seconds=seconds)
    for answer in benchmarked(subjects_of([model.name], setup, backend="all", precision="all"), setup):
        if time.monotonic() > effort.ends:
            yield f"backends of {model.title}: the time was up"
            return
        if isinstance(answer, Failure) and answer.backend is not None:
            yield f"{answer.backend} of {model.title}: {answer.reason}"
        elif isinstance(answer, Measurement):
            frames = answer.latency.runs * answer.batch * model.frames
            sample = Sample(frames=frames, seconds=answer.latency.total_seconds)
            variant = f"{answer.ran_as} {answer.precision}, batches of {answer.batch}"
            yield Figure(
                part="backend",
                variant=variant,
                size=footage.size,
                codec=footage.codec,
                model=model.title,
                frames_per_clip=model.frames,
                samples=(sample,),
            )


@dataclass(eq=False)
class Measuring:
    """Makes measurements in turns, so that what disturbs the machine disturbs them all.

    The first run of each warms up and does not count, nor does one that is too short; after that there is more work.
    What raises is left out from then on, with the reason: one failure must not cost the other measurements.

    Attributes:
        jobs: measurements to make.
        ends: time by `clock` after which nothing is begun.
        clock: returns seconds.
        failures: what could not be done, with the reason.
    """

    jobs: Sequence[Job]
    ends: float
    clock: Callable[[], float] = time.monotonic
    failures: list[str] = field(default_factory=list)

    def run(self) -> Iterator[list[Figure]]:
        """Yield all figures so far, after every run."""
        samples: dict[int, list[Sample]] = {number: [] for number in range(len(self.jobs))}
        times = dict.fromkeys(samples, 1)
        waiting = list(samples)
        while waiting:
            for number in list(waiting):
                job, done = self.jobs[number], samples[number]
                title = job.figure(()).title
                if self.clock() > self.ends:
                    self.failures += [f"{self.jobs[left].figure(()).title}: the time was up" for left in waiting]
                    return
                try:
                    sample = job.run(times[number])
                except (Exception, SystemExit) as error:
                    waiting.remove(number)
                    self.failures.append(f"{title}: {type(error).__name__}: {error}")
                    log.warning("%s", self.failures[-1])
                else:
                    long_enough = sample.counts and sample.seconds >= job.seconds
                    done.append(msgspec.structs.replace(sample, counts=long_enough and bool(done)))
                    if not long_enough:
                        growth = MARGIN * job.seconds / max(sample.seconds, 1e-9)
                        times[number] = math.ceil(times[number] * min(MOST_GROWTH, max(2.0, growth)))
                    log.info("%s: %.0f frames/s in %.1f s", title, sample.rate, sample.seconds)
                    counting = sum(each.counts for each in done)
                    if counting >= job.rounds:
                        waiting.remove(number)
                    elif len(done) - counting > MOST_SHORT_RUNS:
                        waiting.remove(number)
                        self.failures.append(f"{title}: no run lasted {job.seconds:g} seconds")
                yield [job.figure(found) for job, found in zip(self.jobs, samples.values(), strict=True) if found]
