"""`scan`: the one entrance to the runtime, for programs and for the command line alike."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, cast, get_args

from deepscan import arguments as check
from deepscan.errors import MachineError, UsageError
from deepscan.export.parity.conversion import Report, silence
from deepscan.limits import DEFAULT_LIMITS, Limits
from deepscan.naming import in_callers_words
from deepscan.results import VideoResult
from deepscan.runtime.backends.backend_choice import BackendChoice, PrecisionChoice, accepted_computations
from deepscan.runtime.backends.backends import BACKEND_VARIABLE
from deepscan.runtime.backends.devices import Devices, resolve_devices
from deepscan.runtime.faces.face_detectors import FaceDetectorChoice
from deepscan.runtime.media.content import Contents
from deepscan.runtime.media.decoder_choice import DecoderName
from deepscan.runtime.media.inputs import InputPlan, plan_inputs
from deepscan.runtime.media.sampling import DETECT_EVERY, SamplingMode
from deepscan.runtime.pipeline.messages import VideoJob
from deepscan.runtime.pipeline.pipeline import StageTimes
from deepscan.runtime.pipeline.scoring import Aggregate
from deepscan.runtime.pipeline.settings import Wishes, resolve_settings
from deepscan.runtime.pipeline.stages import Progress
from deepscan.runtime.pipeline.trace_parts import Trace
from deepscan.runtime.store.resume import DetectorKey
from deepscan.runtime.system.machine import cpu_count, nvidia_gpus
from deepscan.runtime.workers.plan import cpu_worker, gpu_workers
from deepscan.runtime.workers.supervisor import Note, Supervisor, unnoted
from deepscan.runtime.workers.worker_orders import WorkerOrder, started_worker
from deepscan.spec import LabelBand

MOST_DEFAULT_JOBS: Final = 8
# No video that is worth it takes longer, and none holds up a scan for ever; one that stands still is noticed earlier.
MOST_SECONDS: Final = 24 * 3600.0


def scan(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | Sequence[str] = "lite",
    recursive: bool = True,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    follow_links: bool = False,
    allow_empty: bool = False,
    sampling: SamplingMode | None = None,
    frames: int | None = None,
    clips: int | None = None,
    detect_every: int = DETECT_EVERY,
    min_face: int | None = None,
    mirror: bool | None = None,
    aggregate: Aggregate | None = None,
    threshold: float | None = None,
    face_detector: FaceDetectorChoice = "yunet",
    jobs: int | None = None,
    device: str = "auto",
    decoder: DecoderName = "auto",
    backend: BackendChoice | None = None,
    precision: PrecisionChoice = "auto",
    limits: Limits = DEFAULT_LIMITS,
    timeout: float | None = MOST_SECONDS,
    memory: int | None = None,
    trace: str | os.PathLike[str] | None = None,
    report: Report = silence,
    note: Note = unnoted,
) -> Scan:
    """Prepare a scan; iterate over it to run it.

        for result in scan("videos"):
            print(result.path, result.status, result.score)

    Results come as videos finish: for each input one per detector, in the order of the detectors; `result.index` is
    the input's place in `Scan.plan.inputs`.

    Args:
        paths: one or several files and folders.
        model: one or several detectors (or one string with commas): names of embedded ones or of those whose weights
            were added, or paths of exported .onnx files. All of them share one decoding and one search for faces.
        recursive: whether to descend into folders inside the given ones.
        include: in folders only files like one of these patterns; see `deepscan.runtime.media.inputs.plan_inputs`.
        exclude: in folders nothing like one of these patterns.
        follow_links: whether to follow links inside folders; paths that are given are followed anyway.
        allow_empty: whether an empty list of paths is a scan without results, and no mistake.
        sampling: `full` (the default) scores every frame, `quick` a part (the default when `frames` or `clips` is
            given): single frames, or stretches of them if one of the detectors takes clips; `paper` follows the one
            detector's authors.
        frames: how many frames per video, for `quick` without clip detectors (32 if not given) and `paper` (the
            authors' number).
        clips: how many stretches of one clip's length per video, for `quick` with a clip detector (4 if not given).
        detect_every: search every n-th frame for faces where frames follow each other; boxes between are interpolated.
        min_face: faces whose longer side is below this many pixels are not scored; by default as the detector's spec
            says, because smaller ones tell it too little.
        mirror: average each crop with its mirror image, at twice the cost; by default as the detector's spec says.
        aggregate: `max` takes the highest track, `mean` the mean over all crops or clips; by default `max`, in `paper`
            what the authors do.
        threshold: the score from which a video is called fake, instead of the detector's own.
        face_detector: `yunet`; `retinaface`, whose weights must have been added; or `none` where every picture is the
            crop of a face already.
        jobs: videos decoded at once, by each process; by default one per processor, at most 8, and on a GPU what was
            measured to be fast (see `deepscan.runtime.workers.plan`).
        device: `auto`, `cpu`, `cuda`, some of the GPUs (`cuda:0,1`), or all of them (`cuda:all`).
        decoder: on a GPU, what decodes: `nvdec` where it can, the `cpu`, or by default both, each what it is faster at.
        backend: what executes the detectors; by default what $DEEPSCAN_BACKEND says, else `auto`: what is there is
            measured once and remembered; see `deepscan.runtime.backends.backend_choice`.
        precision: of the arithmetic; `auto` takes the detector's own, or a lower one that was measured to agree.
        limits: how much one input may ask for, and what happens to one that asks for more.
        timeout: seconds that one video may take; None for as long as it goes on.
        memory: bytes that a process on the CPU may take; by default nine tenths of what is there.
        trace: file for a record of who did what when, which chrome://tracing and ui.perfetto.dev show.
        report: takes a line for people when backends are measured, which is done once and takes a while, and when a
            process ends that should not.
        note: takes what happens, by name and with its details, for a log.

    Raises:
        UsageError: the arguments contradict each other, or no path is given.
        ModelError: the detector cannot be loaded.
        MachineError: the device cannot be used.
    """
    backend = backend or cast("BackendChoice", os.environ.get(BACKEND_VARIABLE) or "auto")
    for option, value, accepted in (
        ("--sampling", sampling or "full", SamplingMode),
        ("--aggregate", aggregate or "max", Aggregate),
        ("--face-detector", face_detector, FaceDetectorChoice),
        ("--decoder", decoder, DecoderName),
        ("--backend", backend, BackendChoice),
        ("--precision", precision, PrecisionChoice),
    ):
        check.one_of(option, value, get_args(accepted))
    frames = check.optional(check.whole_number, "--frames", frames, most=check.MOST_SAMPLES)
    clips = check.optional(check.whole_number, "--clips", clips, most=check.MOST_SAMPLES)
    detect_every = check.whole_number("--detect-every", detect_every)
    min_face = check.optional(check.whole_number, "--min-face", min_face)
    jobs = check.optional(check.whole_number, "--jobs", jobs, most=check.MOST_THREADS)
    mirror = check.optional(check.truth, "--mirror", mirror)
    threshold = check.optional(check.probability, "--threshold", threshold)
    timeout = check.optional(check.seconds, "--timeout", timeout)
    memory = check.optional(check.whole_number, "--memory", memory, most=check.MOST_BYTES)
    if not isinstance(limits, Limits):
        raise UsageError("limits must be made with deepscan.Limits(...).")
    names = check.detectors(model)
    plan = plan_inputs(
        check.paths("paths", paths),
        recursive=check.truth("--recursive", recursive),
        include=check.texts("--include", include),
        exclude=check.texts("--exclude", exclude),
        follow_links=check.truth("follow_links", follow_links),
        allow_empty=check.truth("allow_empty", allow_empty),
    )
    used = resolve_devices(check.text("--device", device))
    if decoder == "nvdec" and used.kind == "cpu":
        raise MachineError("--decoder nvdec needs an NVIDIA GPU, and the scan is to run on the CPU: use --device cuda.")
    wishes = Wishes(
        mode=sampling or ("full" if frames is None and clips is None else "quick"),
        frames=frames,
        clips=clips,
        detect_every=detect_every,
        min_face=min_face,
        mirror=mirror,
        aggregate=aggregate,
        threshold=threshold,
        face_detector=face_detector,
        limits=limits,
    )
    # This only finds out, before processes start, whether they will take what is asked for, and what results are of.
    settings = resolve_settings(names, wishes, device="cpu")
    keys = [
        DetectorKey(
            verdict.model,
            verdict.weights_sha256,
            verdict.settings_sha256,
            accepted_computations(artifact, backend, precision, used.kind),
        )
        for artifact, verdict in zip(settings.artifacts, settings.verdicts, strict=True)
    ]
    traced = Trace(check.path("--trace", trace)) if trace is not None else None
    if traced is not None:
        traced.check()
    crew = Crew(
        order=WorkerOrder(names, wishes, used.kind, backend, precision, decoder, memory_bytes=memory),
        devices=used,
        jobs=jobs,
        timeout_seconds=timeout,
        trace=traced,
        report=check.function("report", report),
        note=check.function("note", note),
    )
    return Scan(plan, keys, [verdict.spec.band for verdict in settings.verdicts], crew)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What it takes to start the processes of a scan.

    Attributes:
        order: what all of them are told.
        devices: where they infer.
        jobs: videos decoded at once by each, if that was asked for.
        timeout_seconds: how long a file may take.
        trace: of the scan, if one is wanted.
        report: takes a line for people.
        note: takes what happens, for a log.
    """

    order: WorkerOrder
    devices: Devices
    jobs: int | None
    timeout_seconds: float | None
    trace: Trace | None
    report: Report
    note: Note

    def supervisor(self, videos: Sequence[VideoJob]) -> Supervisor:
        """Return what scans these files."""
        cores = cpu_count()
        if self.devices.kind == "cpu":
            plans = [cpu_worker(jobs=self.jobs, cores=cores, most=MOST_DEFAULT_JOBS, inputs=len(videos))]
        else:
            there = nvidia_gpus()
            gpus = [(number, there[number].memory_bytes) for number in self.devices.gpus]
            plans = gpu_workers(gpus, cores=cores, wish=self.order.decoder, jobs=self.jobs, inputs=len(videos))
        return Supervisor(
            videos,
            plans,
            alone=cpu_worker(jobs=1, cores=cores, most=1, inputs=1),
            start=partial(started_worker, self.order, self.trace),
            report=self.report,
            timeout_seconds=self.timeout_seconds,
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
                yield replace(result, reason=in_callers_words(result.reason))

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
