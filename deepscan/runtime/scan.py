"""`scan`: the one entrance to the runtime, for programs and for the command line alike."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Final, Unpack, cast

from msgspec import structs

from deepscan import arguments as check
from deepscan.arguments import AnyPath
from deepscan.errors import MachineError, UsageError
from deepscan.export.parity.conversion import Report, silence
from deepscan.naming import in_callers_words
from deepscan.options import ScanKeywords, ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.backends.backend_choice import accepted_computations
from deepscan.runtime.backends.devices import Devices, resolve_devices
from deepscan.runtime.media.content import Contents
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.inputs import InputPlan, plan_inputs
from deepscan.runtime.pipeline.pipeline import StageTimes
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.pipeline.stages import Progress
from deepscan.runtime.pipeline.trace_parts import Trace
from deepscan.runtime.store.identity import DetectorKey
from deepscan.runtime.system.machine import cpu_count, nvidia_gpus
from deepscan.runtime.workers.plan import cpu_worker, gpu_workers
from deepscan.runtime.workers.supervisor import Note, Supervisor, unnoted
from deepscan.runtime.workers.worker_orders import WorkerOrder, started_worker
from deepscan.spec import LabelBand

MOST_DEFAULT_JOBS: Final = 8


def scan(
    paths: AnyPath | Iterable[AnyPath],
    options: ScanOptions | None = None,
    *,
    allow_empty: bool = False,
    report: Report = silence,
    note: Note = unnoted,
    **keywords: Unpack[ScanKeywords],
) -> Scan:
    """Prepare a scan; iterate over it to run it.

        for result in scan("videos"):
            print(result.path, result.status, result.score)

    Results come as videos finish: for each input one per detector, in the order of the detectors; `result.index` is
    the input's place in `Scan.plan.inputs`.

    Args:
        paths: one or several files and folders.
        options: of the scan, instead of keywords or beside them; keywords win.
        allow_empty: whether an empty list of paths is a scan without results, and no mistake.
        report: takes a line when backends are measured, which is done once and takes a while, and when a process ends
            that should not.
        note: takes what happens, by name and with its details, for a log.
        keywords: fields of `ScanOptions`: every one is described there.

    Raises:
        UsageError: the arguments contradict each other, or no path is given.
        ModelError: the detector cannot be loaded.
        MachineError: the device cannot be used.
    """
    options = _resolve_options(options, keywords)
    plan = plan_inputs(
        check.paths("paths", paths),
        recursive=options.recursive,
        include=options.include,
        exclude=options.exclude,
        follow_links=options.follow_links,
        allow_empty=check.truth("allow_empty", allow_empty),
    )
    used = resolve_devices(options.device)
    if options.decoder == "nvdec" and used.kind == "cpu":
        raise MachineError("--decoder nvdec needs an NVIDIA GPU, and the scan is to run on the CPU: use --device cuda.")
    # This only finds out, before processes start, whether they will take what is asked for, and what results are of.
    settings = resolve_settings(options, device="cpu")
    backend = options.backend or "auto"
    keys = [
        DetectorKey(
            verdict.model,
            verdict.weights_sha256,
            verdict.settings_sha256,
            accepted_computations(artifact, backend, options.precision, used.kind),
        )
        for artifact, verdict in zip(settings.artifacts, settings.verdicts, strict=True)
    ]
    traced = Trace(options.trace) if options.trace is not None else None
    if traced is not None:
        traced.check()
    crew = Crew(
        order=WorkerOrder(options, used.kind),
        devices=used,
        trace=traced,
        report=check.function("report", report),
        note=check.function("note", note),
    )
    return Scan(plan, keys, [verdict.spec.band for verdict in settings.verdicts], crew)


def _resolve_options(options: ScanOptions | None, keywords: ScanKeywords) -> ScanOptions:
    """Return the options in force: with the keywords and the environment."""
    if options is None:
        options = ScanOptions(**keywords)  # type: ignore[arg-type]  # paths become text
    elif not isinstance(options, ScanOptions):
        raise UsageError("options must be made with deepscan.ScanOptions(...).")
    elif keywords:
        options = structs.replace(options, **keywords)
    return options.with_environment()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What it takes to start the processes of a scan.

    Attributes:
        order: what all of them are told.
        devices: where they infer.
        trace: of the scan, if one is wanted.
        report: takes a line for people.
        note: takes what happens, for a log.
    """

    order: WorkerOrder
    devices: Devices
    trace: Trace | None
    report: Report
    note: Note

    def supervisor(self, videos: Sequence[VideoJob]) -> Supervisor:
        """Return what scans these files."""
        options, cores = self.order.options, cpu_count()
        if self.devices.kind == "cpu":
            plans = [cpu_worker(jobs=options.jobs, cores=cores, most=MOST_DEFAULT_JOBS, inputs=len(videos))]
        else:
            there = nvidia_gpus()
            gpus = [(number, there[number].memory_bytes) for number in self.devices.gpus]
            plans = gpu_workers(gpus, cores=cores, wish=options.decoder, jobs=options.jobs, inputs=len(videos))
        return Supervisor(
            videos,
            plans,
            alone=cpu_worker(jobs=1, cores=cores, most=1, inputs=1),
            start=partial(started_worker, self.order, self.trace),
            report=self.report,
            timeout_seconds=options.timeout,
            note=self.note,
        )


class Scan:
    """A scan that runs, once, while it is iterated over.

    Attributes:
        plan: the inputs; `result.index` is a place in `plan.inputs`.
        detectors: what the results of each input are of, in order.
        bands: the thresholds of each detector's labels, in the same order.
    """

    def __init__(
        self, plan: InputPlan, detectors: Sequence[DetectorKey], bands: Sequence[LabelBand], crew: Crew
    ) -> None:
        self.plan = plan
        self.detectors = tuple(detectors)
        self.bands = tuple(bands)
        self._crew = crew
        self._jobs = [VideoJob(index, planned.path, planned.problem) for index, planned in enumerate(plan.inputs)]
        self._skipped: frozenset[int] = frozenset()
        self._supervisor = crew.supervisor(self._jobs)
        self._begun = False

    @property
    def models(self) -> list[str]:
        """What results call the detectors."""
        return [key.model for key in self.detectors]

    @property
    def device(self) -> str:
        """Where the detectors run."""
        return str(self._crew.devices)

    @property
    def progress(self) -> Progress:
        """How far it is; skipped inputs do not count."""
        return self._supervisor.progress

    @property
    def finished(self) -> int:
        """How many inputs are done, those that were left out included."""
        return len(self._skipped) + self.progress.videos

    @property
    def stopped(self) -> bool:
        """Whether it ended, or will end, because `stop` was called."""
        return self._supervisor.stopping

    def skip(self, indexes: Collection[int]) -> None:
        """Leave inputs out, by their places in the plan; to be called before the scan runs."""
        if self._begun:
            raise UsageError("Inputs can be left out of a scan before it runs, and not later.")
        self._skipped |= frozenset(indexes)
        for index in self._skipped:
            self._jobs[index].share_done = 1.0
        self._supervisor = self._crew.supervisor([job for job in self._jobs if job.index not in self._skipped])

    def expect(self, contents: Contents) -> None:
        """Say what the inputs hold, in the order of the plan, so that results tell whether that was read.

        To be called before the scan runs; then `result.content` is the content id of what was really read.
        """
        for job in self._jobs:
            job.planned = contents.planned(job.index)

    def unskip(self, index: int) -> None:
        """Scan an input that was left out after all others; may be called while the scan runs, between two results."""
        if index not in self._skipped:
            raise UsageError("Only an input that was left out of a scan can be taken up again.")
        self._skipped -= {index}
        self._jobs[index].share_done = 0.0
        self._supervisor.add(self._jobs[index])

    def stop(self) -> None:
        """Begin no further file; those in flight are finished. May be called from a signal's handler."""
        self._supervisor.stop()

    def __iter__(self) -> Iterator[VideoResult]:
        """Run, once; leaving the loop early ends all that runs, at once."""
        if self._begun:
            raise UsageError("A scan runs once: call scan() again.")
        self._begun = True
        with ExitStack() as stack:
            stack.callback(self._finish_trace)
            for result in stack.enter_context(closing(cast("Generator[VideoResult]", iter(self._supervisor)))):
                yield structs.replace(result, reason=in_callers_words(result.reason))

    def _finish_trace(self) -> None:
        if self._crew.trace is not None:
            self._crew.trace.finish()

    def stage_times(self) -> list[StageTimes]:
        """Return where the time went, stage by stage, so far; summed over the processes."""
        return self._supervisor.stage_times()

    def decoded_by(self) -> tuple[int, dict[str, int]]:
        """Return how many videos NVDEC decoded, and how many the CPU although there is NVDEC, by the reason."""
        return self._supervisor.decoded_by()

    def share_done(self) -> float:
        """Estimate how much of the work is done, 0 to 1, by the sizes of the files."""
        sizes = [planned.size_bytes or 1 for planned in self.plan.inputs]
        done = sum(size * job.share_done for size, job in zip(sizes, self._jobs, strict=True))
        return done / sum(sizes) if sizes else 1.0
