"""`scan`: the one entrance to the runtime, for programs and for the command line alike."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Final, cast, get_args

from deepscan.errors import UsageError
from deepscan.runtime.backend_choice import BackendChoice, PrecisionChoice, chosen_backend
from deepscan.runtime.backends import BACKEND_VARIABLE, Backend
from deepscan.runtime.conversion import Report, silence
from deepscan.runtime.cutting import cuts_for
from deepscan.runtime.face_detectors import FaceDetectorChoice
from deepscan.runtime.following import FaceFollower, Follower
from deepscan.runtime.infer_stage import InferStage
from deepscan.runtime.inputs import InputPlan, plan_inputs
from deepscan.runtime.machine import DeviceChoice, chosen_device, cpu_count
from deepscan.runtime.messages import VideoJob
from deepscan.runtime.open_input import open_input
from deepscan.runtime.pipeline import Pipeline, Source, Stage, StageTimes
from deepscan.runtime.results import VideoResult
from deepscan.runtime.sampling import DETECT_EVERY, SamplingMode
from deepscan.runtime.scoring import Aggregate
from deepscan.runtime.sessions import Device
from deepscan.runtime.settings import ScanSettings, Wishes, chosen_settings
from deepscan.runtime.stages import DecodeStage, FacesStage, Progress
from deepscan.runtime.tracking import LargestFace, Tracker
from deepscan.runtime.unbroken_follower import UnbrokenFollower

MOST_DEFAULT_JOBS: Final = 8
# A face may be out of sight for this long and keep its track; where looks are seconds apart, for ever.
MAX_GAP_SECONDS: Final = 1.0
MIB: Final = 1 << 20
DECODED_BYTES: Final = 24 * MIB
CROP_BYTES: Final = 8 * MIB
RESULTS_WAITING_BYTES: Final = MIB
FRAMES_AT_ONCE: Final = 4
CROPS_AT_ONCE: Final = 16


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
    device: DeviceChoice = "auto",
    backend: BackendChoice | None = None,
    precision: PrecisionChoice = "auto",
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
        jobs: videos decoded at once; by default one per processor, at most 8.
        device: `auto`, `cpu` or `cuda`.
        backend: what executes the detectors; by default what $DEEPSCAN_BACKEND says, else `auto`: what is there is
            measured once and remembered; see `deepscan.runtime.backend_choice`.
        precision: of the arithmetic; `auto` takes the detector's own, or a lower one that was measured to agree.
        report: takes a line for people when backends are measured, which is done once and takes a while.

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
        ("device", device, DeviceChoice),
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
    used = chosen_device(device)
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
    settings = chosen_settings(names, wishes, device=used)
    backends = [
        chosen_backend(artefact, backend=backend, precision=precision, device=used, threads=cpu_count(), report=report)
        for artefact in settings.artefacts
    ]
    return Scan(
        plan,
        settings=settings,
        backends=backends,
        jobs=jobs or min(cpu_count(), MOST_DEFAULT_JOBS),
        device=used,
    )


class Scan:
    """A scan that runs, once, while it is iterated over.

    Attributes:
        plan: the inputs; `result.index` is a place in `plan.inputs`.
        progress: how far it is.
        device: where the detectors run.
        models: what results call the detectors.
        jobs: how many videos are decoded at once.
    """

    def __init__(
        self, plan: InputPlan, *, settings: ScanSettings, backends: Sequence[Backend], jobs: int, device: Device
    ) -> None:
        self.plan = plan
        self.progress = Progress()
        self._begun = False
        self.device = device
        self.models = [verdict.model for verdict in settings.verdicts]
        self.jobs = min(jobs, len(plan.inputs))
        self._backends = backends
        self._jobs = [VideoJob(index, planned.path, planned.problem) for index, planned in enumerate(plan.inputs)]
        threads = cpu_count()
        faces = FacesStage(settings.face_detector, _followers_maker(settings), progress=self.progress)
        infer = InferStage(list(zip(backends, settings.verdicts, strict=True)), progress=self.progress)
        decode = DecodeStage(
            partial(open_input, threads=max(1, threads // self.jobs)),
            settings.sampling,
            detection_side=settings.detection_side,
        )
        self._pipeline = Pipeline(
            self._jobs,
            Source("decode", decode, threads=self.jobs, max_bytes=DECODED_BYTES),
            [
                Stage("faces", faces, batch=FRAMES_AT_ONCE, max_bytes=CROP_BYTES),
                Stage("infer", infer, batch=CROPS_AT_ONCE, max_bytes=RESULTS_WAITING_BYTES),
            ],
        )

    def __iter__(self) -> Iterator[VideoResult]:
        """Run, once; leaving the loop early stops everything and waits for it."""
        if self._begun:
            raise UsageError("A scan runs once: call scan() again.")
        self._begun = True
        with ExitStack() as stack:
            for backend in self._backends:
                stack.callback(backend.close)
            # Closed first: then no thread computes any more.
            for scored in stack.enter_context(closing(self._pipeline.results())):
                yield scored.result

    def stage_times(self) -> list[StageTimes]:
        """Return where the time went, stage by stage, so far."""
        return self._pipeline.times()

    def share_done(self) -> float:
        """Estimate how much of the work is done, 0 to 1, by the sizes of the files."""
        sizes = [planned.size_bytes or 1 for planned in self.plan.inputs]
        done = sum(size * job.share_done for size, job in zip(sizes, self._jobs, strict=True))
        return done / sum(sizes)


def _patterns(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given


def _followers_maker(settings: ScanSettings) -> Callable[[VideoJob], list[Follower]]:
    """Return what makes the followers of a video; it holds on to no model."""
    cuts = cuts_for([verdict.spec for verdict in settings.verdicts], whole_pictures=settings.whole_pictures)
    sampling, stride = settings.sampling, settings.stride
    if sampling.twice:
        return lambda job: [UnbrokenFollower(job, cut, stride=stride) for cut in cuts]
    if settings.largest_face:
        return lambda job: [FaceFollower(job, cut, LargestFace(), joins_gaps=True) for cut in cuts]
    gap = MAX_GAP_SECONDS if sampling.choice == "all" else math.inf
    return lambda job: [FaceFollower(job, cut, Tracker(max_gap_seconds=gap)) for cut in cuts]
