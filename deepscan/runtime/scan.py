"""`scan`: the one entrance to the runtime, for programs and for the command line alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final, cast, get_args

from deepscan.errors import MachineError, UsageError
from deepscan.runtime.backend_choice import BackendChoice, PrecisionChoice, chosen_backend
from deepscan.runtime.backends import BACKEND_VARIABLE
from deepscan.runtime.conversion import Report, silence
from deepscan.runtime.devices import Devices, chosen_devices
from deepscan.runtime.face_detectors import FaceDetectorChoice
from deepscan.runtime.gpu.decoder_choice import DecoderWish
from deepscan.runtime.inputs import InputPlan, plan_inputs
from deepscan.runtime.machine import cpu_count, nvidia_gpus
from deepscan.runtime.messages import VideoJob
from deepscan.runtime.pipeline import StageTimes
from deepscan.runtime.pipeline_scan import ON_CPU, Decoders, PipelineScan
from deepscan.runtime.results import VideoResult
from deepscan.runtime.sampling import DETECT_EVERY, SamplingMode
from deepscan.runtime.scoring import Aggregate
from deepscan.runtime.settings import ScanSettings, Wishes, chosen_settings
from deepscan.runtime.stages import Progress
from deepscan.runtime.supervisor import Supervisor
from deepscan.runtime.trace_parts import Trace
from deepscan.runtime.worker_orders import WorkerOrder, started_worker
from deepscan.runtime.worker_plan import cpu_worker, gpu_workers

MOST_DEFAULT_JOBS: Final = 8


def scan(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str | Sequence[str] = "lite",
    recursive: bool = True,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
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
    decoder: DecoderWish = "auto",
    backend: BackendChoice | None = None,
    precision: PrecisionChoice = "auto",
    trace: str | os.PathLike[str] | None = None,
    report: Report = silence,
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
        include: in folders only files like one of these patterns; see `deepscan.runtime.inputs.plan_inputs`.
        exclude: in folders nothing like one of these patterns.
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
            measured to be fast (see `deepscan.runtime.worker_plan`).
        device: `auto`, `cpu`, `cuda`, some of the GPUs (`cuda:0,1`), or all of them (`cuda:all`).
        decoder: on a GPU, what decodes: `nvdec` where it can, the `cpu`, or by default both, each what it is faster at.
        backend: what executes the detectors; by default what $DEEPSCAN_BACKEND says, else `auto`: what is there is
            measured once and remembered; see `deepscan.runtime.backend_choice`.
        precision: of the arithmetic; `auto` takes the detector's own, or a lower one that was measured to agree.
        trace: file for a record of who did what when, which chrome://tracing and ui.perfetto.dev show.
        report: takes a line for people when backends are measured, which is done once and takes a while, and when a
            process ends that should not.

    Raises:
        UsageError: the arguments contradict each other, or there is nothing to scan.
        ModelError: the detector cannot be loaded.
        MachineError: the device cannot be used.
    """
    backend = backend or cast("BackendChoice", os.environ.get(BACKEND_VARIABLE) or "auto")
    for name, value, accepted in (
        ("sampling", sampling or "full", SamplingMode),
        ("aggregate", aggregate or "max", Aggregate),
        ("face_detector", face_detector, FaceDetectorChoice),
        ("decoder", decoder, DecoderWish),
        ("backend", backend, BackendChoice),
        ("precision", precision, PrecisionChoice),
    ):
        if value not in get_args(accepted):
            raise UsageError(f"{name} {value!r} is not known: use one of {', '.join(get_args(accepted))}.")
    if min(number for number in (frames, clips, detect_every, min_face, jobs, 1) if number is not None) < 1:
        raise UsageError("--frames, --clips, --detect-every, --min-face and --jobs must be at least 1.")
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise UsageError(f"--threshold is a probability between 0 and 1, not {threshold}.")
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    plan = plan_inputs(given, recursive=recursive, include=_patterns(include), exclude=_patterns(exclude))
    used = chosen_devices(device)
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
    )
    names = [name.strip() for name in model.split(",")] if isinstance(model, str) else list(model)
    # For a GPU this only finds out, before processes start, whether they will take what is asked for.
    settings = chosen_settings(names, wishes, device="cpu")
    videos = [VideoJob(index, planned.path, planned.problem) for index, planned in enumerate(plan.inputs)]
    order = WorkerOrder(names, wishes, used.kind, backend, precision, decoder)
    traced = Trace(trace) if trace is not None else None
    running: PipelineScan | Supervisor
    if used.kind == "cpu":
        running = _in_this_process(videos, settings, order, jobs, traced, report)
    else:
        running = _in_workers(videos, order, used, jobs, traced, report)
    shown = [verdict.model for verdict in settings.verdicts]
    return Scan(plan, videos, running, models=shown, device=str(used), trace=traced, report=report)


def _in_this_process(
    videos: Sequence[VideoJob],
    settings: ScanSettings,
    order: WorkerOrder,
    jobs: int | None,
    trace: Trace | None,
    report: Report,
) -> PipelineScan:
    threads = cpu_count()
    backends = [
        chosen_backend(
            artefact, backend=order.backend, precision=order.precision, device="cpu", threads=threads, report=report
        )
        for artefact in settings.artefacts
    ]
    decoders = min(jobs or min(threads, MOST_DEFAULT_JOBS), len(videos))
    return PipelineScan(
        videos,
        settings=settings,
        backends=backends,
        decoders=Decoders(decoders, max(1, threads // decoders)),
        bounds=ON_CPU,
        trace=trace.writer() if trace is not None else None,
    )


def _in_workers(
    videos: Sequence[VideoJob],
    order: WorkerOrder,
    devices: Devices,
    jobs: int | None,
    trace: Trace | None,
    report: Report,
) -> Supervisor:
    there, cores = nvidia_gpus(), cpu_count()
    gpus = [(number, there[number].memory_bytes) for number in devices.gpus]
    plans = gpu_workers(gpus, cores=cores, wish=order.decoder, jobs=jobs, inputs=len(videos))
    alone = cpu_worker(jobs=1, cores=cores, most=1)
    return Supervisor(videos, plans, alone=alone, start=partial(started_worker, order, trace), report=report)


class Scan:
    """A scan that runs, once, while it is iterated over.

    Attributes:
        plan: the inputs; `result.index` is a place in `plan.inputs`.
        device: where the detectors run.
        models: what results call the detectors.
    """

    def __init__(
        self,
        plan: InputPlan,
        jobs: Sequence[VideoJob],
        running: PipelineScan | Supervisor,
        *,
        models: Sequence[str],
        device: str,
        trace: Trace | None = None,
        report: Report = silence,
    ) -> None:
        self.plan = plan
        self.device = device
        self.models = list(models)
        self._jobs = jobs
        self._running = running
        self._trace = trace
        self._report = report
        self._begun = False

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._running.progress

    def __iter__(self) -> Iterator[VideoResult]:
        """Run, once; leaving the loop early stops everything and waits for it."""
        if self._begun:
            raise UsageError("A scan runs once: call scan() again.")
        self._begun = True
        with ExitStack() as stack:
            stack.callback(self._finish_trace)
            yield from stack.enter_context(closing(iter(self._running)))  # type: ignore[type-var]

    def _finish_trace(self) -> None:
        missing = self._trace.finish() if self._trace is not None else None
        if missing is not None:
            self._report(missing)

    def stage_times(self) -> list[StageTimes]:
        """Return where the time went, stage by stage, so far; summed over the processes."""
        return self._running.stage_times()

    def decoded_by(self) -> tuple[int, dict[str, int]]:
        """Return how many videos NVDEC decoded, and how many the CPU although there is NVDEC, by the reason."""
        return self._running.decoded_by() if isinstance(self._running, Supervisor) else (0, {})

    def share_done(self) -> float:
        """Estimate how much of the work is done, 0 to 1, by the sizes of the files."""
        sizes = [planned.size_bytes or 1 for planned in self.plan.inputs]
        done = sum(size * job.share_done for size, job in zip(sizes, self._jobs, strict=True))
        return done / sum(sizes)


def _patterns(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given
