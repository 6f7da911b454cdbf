"""`scan`: the entry point of the runtime, for programs and for the command line."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Final, Unpack, cast

from msgspec import structs

from deepscan import arguments as check
from deepscan.arguments import AnyPath
from deepscan.errors import MachineError, UsageError
from deepscan.naming import in_callers_words
from deepscan.options import ScanKeywords, ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.backends.devices import Devices, resolve_devices
from deepscan.runtime.backends.selection import accepted_computations
from deepscan.runtime.media.content import PlannedContent
from deepscan.runtime.media.inputs import InputPlan, plan_inputs
from deepscan.runtime.pipeline.fusing import FusedDetector, resolve_fusion
from deepscan.runtime.pipeline.pipeline import Progress, StageTimes
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.pipeline.trace import Trace
from deepscan.runtime.store.frame_files import FrameRows, FrameStore, check_frame_file
from deepscan.runtime.store.identity import DetectorKey
from deepscan.runtime.system.machine import Device, cpu_count, nvidia_gpus
from deepscan.runtime.workers.plan import cpu_worker, gpu_workers
from deepscan.runtime.workers.protocol import Detector, Finished, Heartbeat, Job
from deepscan.runtime.workers.supervisor import KnownFailure, Supervisor
from deepscan.runtime.workers.worker_slots import summed_decoders, summed_times

MOST_DEFAULT_JOBS: Final = 8


def scan(
    paths: AnyPath | Iterable[AnyPath],
    options: ScanOptions | None = None,
    *,
    allow_empty: bool = False,
    **keywords: Unpack[ScanKeywords],
) -> Scan:
    """Prepare a scan; iterate over it to run it.

        for result in scan("videos"):
            print(result.path, result.status, result.score)

    Results come as videos finish: for each input one per detector, in the order of the detectors. `result.index` is
    the place of the input in `Scan.plan.inputs`.

    Args:
        paths: one or several files and folders.
        options: options of the scan; keywords override them.
        allow_empty: whether an empty list of paths gives a scan without results instead of an error.
        keywords: fields of `ScanOptions`, which describes them.

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
    settings = resolve_settings(options)
    plan = dataclasses.replace(plan, warnings=(*plan.warnings, *settings.notes))
    backend = options.backend or "auto"
    keys = [
        DetectorKey(
            each.model,
            each.weights_sha256,
            each.settings_sha256,
            accepted_computations(manifest, backend=backend, precision=options.precision, device=used.kind),
        )
        for manifest, each in zip(settings.manifests, settings.scoring, strict=True)
    ]
    if options.per_frame is not None:
        check_frame_file(options.per_frame, [planned.path for planned in plan.inputs])
    trace = Trace(options.trace) if options.trace is not None else None
    if trace is not None:
        trace.check()
    fused = resolve_fusion(settings, options)
    return Scan(plan, keys, options=options, devices=used, trace=trace, fused=fused)


def _resolve_options(options: ScanOptions | None, keywords: ScanKeywords) -> ScanOptions:
    """Return the options with the keywords and the environment applied."""
    if options is None:
        options = ScanOptions(**keywords)  # type: ignore[arg-type]  # paths become text
    elif not isinstance(options, ScanOptions):
        raise UsageError("options must be made with deepscan.ScanOptions(...).")
    elif keywords:
        options = structs.replace(options, **keywords)
    return options.with_environment()


class _Jobs(Iterator[Job | KnownFailure]):
    """Inputs to scan. The iterator may go on after its end, when inputs have been added.

    Attributes:
        waiting: places of the inputs in the plan.
        contents: contents of the inputs when the scan was planned, if they were read.
    """

    def __init__(self, plan: InputPlan) -> None:
        self._plan = plan
        self.waiting: deque[int] = deque()
        self.contents: Sequence[PlannedContent] | None = None

    def __next__(self) -> Job | KnownFailure:
        if not self.waiting:
            raise StopIteration
        index = self.waiting.popleft()
        planned = self._plan.inputs[index]
        if planned.problem is not None:
            return KnownFailure(index, planned.path, planned.problem)
        return Job(index, os.fsencode(planned.path), self.contents[index] if self.contents else None)


class Scan:
    """A scan, which runs once, while it is iterated over.

    Attributes:
        plan: inputs; `result.index` is a place in `plan.inputs`.
        detectors: detectors in the order of the results of each input.
        fused: fusion of them, if there is one; its result is the last of each input.
    """

    def __init__(
        self,
        plan: InputPlan,
        detectors: Sequence[DetectorKey],
        *,
        options: ScanOptions,
        devices: Devices,
        trace: Trace | None,
        fused: FusedDetector | None,
    ) -> None:
        self.plan = plan
        self.detectors = tuple(detectors)
        self.fused = fused
        self._options = options
        self._devices = devices
        self._trace = trace
        self._jobs = _Jobs(plan)
        self._skipped: set[int] = set()
        self._finished: set[int] = set()
        self._supervisor: Supervisor | None = None
        self._frames: FrameStore | None = None
        self._stopped = False

    @property
    def models(self) -> list[str]:
        """Names of the detectors in the results."""
        return [*(key.model for key in self.detectors), *([self.fused.model] if self.fused is not None else [])]

    @property
    def device(self) -> str:
        """Device or devices that run the detectors."""
        return str(self._devices)

    @property
    def per_frame(self) -> str | None:
        """Path of the per-frame file; None if there is to be none."""
        return self._options.per_frame

    @property
    def progress(self) -> Progress:
        """Progress so far, without skipped inputs."""
        return self._supervisor.progress if self._supervisor is not None else Progress()

    @property
    def finished(self) -> int:
        """Number of inputs that are done, including skipped ones."""
        return len(self._skipped) + self.progress.videos

    @property
    def stopped(self) -> bool:
        """Whether it ended, or will end, because `stop` was called."""
        return self._stopped

    def skip(self, indexes: Collection[int]) -> None:
        """Skip inputs, given by their places in the plan. Must be called before the scan runs."""
        if self._supervisor is not None:
            raise UsageError("Inputs can be left out of a scan before it runs, and not later.")
        self._skipped |= set(indexes)

    def expect(self, contents: Sequence[PlannedContent]) -> None:
        """Set the contents that the inputs are expected to have, in the order of the plan.

        Must be called before the scan runs. Then `result.content` is the content id of the bytes that were really read.
        """
        self._jobs.contents = contents

    def keep_frames(self, frames: FrameStore) -> None:
        """Leave the parts of the per-frame file in this store, whose owner writes the file.

        Must be called before the scan runs. Otherwise the scan writes the file when it has ended, with what it
        scanned.
        """
        self._frames = frames

    def unskip(self, index: int) -> None:
        """Scan a skipped input after all others. May be called while the scan runs, between two results."""
        if index not in self._skipped:
            raise UsageError("Only an input that was left out of a scan can be taken up again.")
        self._skipped.discard(index)
        if self._supervisor is not None:
            self._jobs.waiting.append(index)

    def stop(self) -> None:
        """Begin no further file, but finish those in flight. May be called from a signal handler."""
        self._stopped = True
        if self._supervisor is not None:
            self._supervisor.stop()

    def __iter__(self) -> Iterator[VideoResult]:
        """Run, once; leaving the loop early ends all workers at once."""
        with closing(self.by_input()) as finished:
            for results in finished:
                yield from results

    def by_input(self) -> Generator[tuple[VideoResult, ...]]:
        """Run like an iteration, but yield all results of an input together, in the order of the detectors."""
        if self._supervisor is not None:
            raise UsageError("A scan runs once: call scan() again.")
        self._jobs.waiting.extend(index for index in range(len(self.plan.inputs)) if index not in self._skipped)
        with ExitStack() as stack:
            frames, own = self._frames, None
            if self._options.per_frame is not None and frames is None:
                frames = own = stack.enter_context(FrameStore(self._options.per_frame, temporary=True))
            rows: dict[int, list[FrameRows]] = {}
            self._supervisor = self._make_supervisor(frames.folder if frames is not None else None)
            if self._stopped:
                self._supervisor.stop()
            if self._trace is not None:
                stack.callback(self._trace.finish)
            for finished in stack.enter_context(closing(cast("Generator[Finished]", iter(self._supervisor)))):
                self._finished.add(finished.index)
                adopted = frames.adopt(finished.results) if frames is not None else []
                if own is not None:
                    rows[finished.index] = adopted
                results = tuple(
                    structs.replace(result, reason=in_callers_words(result.reason)) for result in finished.results
                )
                yield results if self.fused is None else self.fused.add(results)

            if own is not None:
                own.write(each for index in sorted(rows) for each in rows[index])

    def _make_supervisor(self, frames: str | None) -> Supervisor:
        cores = cpu_count()
        inputs = sum(self.plan.inputs[index].problem is None for index in self._jobs.waiting)
        if self._devices.kind == "cpu":
            plans = [cpu_worker(jobs=self._options.jobs, cores=cores, most=MOST_DEFAULT_JOBS, inputs=inputs)]
        else:
            there = nvidia_gpus()
            gpus = [(number, there[number].memory_bytes) for number in self._devices.gpus]
            decoder, jobs = self._options.decoder, self._options.jobs
            plans = gpu_workers(gpus, cores=cores, decoder=decoder, jobs=jobs, inputs=inputs)
        return Supervisor(
            self._jobs,
            plans,
            alone=cpu_worker(jobs=1, cores=cores, most=1, inputs=1),
            options=self._options,
            detectors=[_expected(key, self._devices.kind) for key in self.detectors],
            trace=self._trace,
            frames=frames,
        )

    def _heartbeats(self) -> list[Heartbeat]:
        return self._supervisor.heartbeats() if self._supervisor is not None else []

    def stage_times(self) -> list[StageTimes]:
        """Return the times of each stage so far, summed over the workers."""
        return summed_times(self._heartbeats())

    def decoded_by(self) -> tuple[int, dict[str, int]]:
        """Return how many videos NVDEC decoded, and how many fell back to the CPU, by reason."""
        return summed_decoders(self._heartbeats())

    def share_done(self) -> float:
        """Return the share of the work that is done, 0 to 1, estimated by the sizes of the files."""
        sizes = [planned.size_bytes or 1 for planned in self.plan.inputs]
        done = self._finished | self._skipped
        whole = sum(size for index, size in enumerate(sizes) if index in done)
        shares = dict(self._supervisor.shares) if self._supervisor is not None else {}
        parts = sum(sizes[index] * share for index, share in shares.items() if index not in done)
        return (whole + parts) / sum(sizes) if sizes else 1.0


def _expected(key: DetectorKey, device: Device) -> Detector:
    """Return what rows say about a detector that no worker has loaded: the computation that would be used."""
    here = [known for known in key.computations if known[0].endswith(f"-{device}")]
    backend, precision = min(here or key.computations)
    return Detector(
        model=key.model,
        backend=backend,
        precision=precision,
        weights_sha256=key.weights_sha256,
        settings_sha256=key.settings_sha256,
    )
