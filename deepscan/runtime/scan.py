"""`scan`: the one entrance to the runtime, for programs and for the command line alike."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Literal, get_args

import msgspec

from deepscan.errors import ModelError, UsageError
from deepscan.runtime import yunet
from deepscan.runtime.artefacts import Artefact, load_artefact
from deepscan.runtime.backends import OnnxRuntimeBackend
from deepscan.runtime.inputs import InputPlan, plan_inputs
from deepscan.runtime.machine import DeviceChoice, chosen_device, cpu_count
from deepscan.runtime.messages import VideoJob
from deepscan.runtime.pipeline import Pipeline, Source, Stage, StageTimes
from deepscan.runtime.pyav_reader import open_video
from deepscan.runtime.results import VideoResult
from deepscan.runtime.sampling import Sampling, SamplingMode
from deepscan.runtime.scoring import Aggregate, band_with_threshold
from deepscan.runtime.sessions import Device
from deepscan.runtime.stages import DETECTION_SIDE, DecodeStage, FacesStage, InferStage, Progress, Verdict
from deepscan.spec import DetectorSpec

# Goes into `settings_sha256`: raised whenever the same settings begin to mean other scores.
SCORING_VERSION: Final = 1
# Fields of a spec that change neither scores nor labels.
NOT_SCORING: Final = frozenset(["schema", "title", "paper_frames"])
QUICK_FRAMES: Final = 32
# Chosen by measurement: see "Detecting every n-th frame" in benchmarks/README.md.
DETECT_EVERY: Final = 5
MOST_DEFAULT_JOBS: Final = 8
# A face may be out of sight for this long and keep its track; where looks are seconds apart, for ever.
MAX_GAP_SECONDS: Final = 1.0
# Crops that make a track decisive; shorter ones are pooled.
DECISIVE_CLIPS_DENSE: Final = 12
DECISIVE_CLIPS_SPARSE: Final = 3
MIB: Final = 1 << 20
DECODED_BYTES: Final = 24 * MIB
CROP_BYTES: Final = 8 * MIB
RESULTS_WAITING_BYTES: Final = MIB
FRAMES_AT_ONCE: Final = 4
CROPS_AT_ONCE: Final = 16


PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]


def scan(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str = "lite",
    recursive: bool = True,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    sampling: SamplingMode | None = None,
    frames: int | None = None,
    detect_every: int = DETECT_EVERY,
    min_face: int | None = None,
    mirror: bool | None = None,
    aggregate: Aggregate = "max",
    threshold: float | None = None,
    jobs: int | None = None,
    device: DeviceChoice = "auto",
    precision: PrecisionChoice = "auto",
) -> Scan:
    """Prepare a scan; iterate over it to run it.

        for result in scan("videos"):
            print(result.path, result.status, result.score)

    Results come as videos finish; `result.index` is the input's place in `Scan.plan.inputs`.

    Args:
        paths: one or several files and folders.
        model: name of an embedded detector, or path of an exported .onnx file.
        recursive: whether to descend into folders inside the given ones.
        include: in folders only files like one of these patterns; see `deepscan.runtime.inputs.plan_inputs`.
        exclude: in folders nothing like one of these patterns.
        sampling: `full` (the default) scores every frame, `quick` some frames (the default when `frames` is given),
            `paper` as the detector's authors measured.
        frames: how many frames per video, for `quick` (32 if not given) and `paper` (the authors' number).
        detect_every: in `full`, search every n-th frame for faces; boxes between are interpolated.
        min_face: faces whose longer side is below this many pixels are not scored; by default as the detector's spec
            says, because smaller ones tell it too little.
        mirror: average each crop with its mirror image, at twice the cost; by default as the detector's spec says.
        aggregate: `max` takes the highest track, `mean` the mean over all crops.
        threshold: the score from which a video is called fake, instead of the detector's own.
        jobs: videos decoded at once; by default one per processor, at most 8.
        device: `auto`, `cpu` or `cuda`.
        precision: refuse an artefact of another precision.

    Raises:
        UsageError: the arguments contradict each other, or there is nothing to scan.
        ModelError: the detector cannot be loaded.
        MachineError: the device cannot be used.
    """
    for name, value, accepted in (
        ("sampling", sampling or "full", SamplingMode),
        ("aggregate", aggregate, Aggregate),
        ("device", device, DeviceChoice),
        ("precision", precision, PrecisionChoice),
    ):
        if value not in get_args(accepted):
            raise UsageError(f"{name} {value!r} is not known: use one of {', '.join(get_args(accepted))}.")
    if frames is not None and sampling == "full":
        raise UsageError("--frames goes with --sampling quick or paper: full scores every frame.")
    if min(number for number in (frames, detect_every, min_face, jobs) if number is not None) < 1:
        raise UsageError("--frames, --detect-every, --min-face and --jobs must be at least 1.")
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise UsageError(f"--threshold is a probability between 0 and 1, not {threshold}.")
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    plan = plan_inputs(given, recursive=recursive, include=_patterns(include), exclude=_patterns(exclude))
    artefact = load_artefact(model)
    manifest = artefact.manifest
    if precision not in ("auto", manifest.precision):
        raise ModelError(f"{manifest.file} is {manifest.precision}, not {precision}: leave out --precision.")
    mode = sampling or ("full" if frames is None else "quick")
    spec = _adapted(manifest.spec, threshold=threshold, min_face=min_face)
    chosen = Sampling(
        mode=mode,
        frames=frames or (spec.paper_frames if mode == "paper" else QUICK_FRAMES),
        detect_every=detect_every,
    )
    mirrors = spec.mirror if mirror is None else mirror
    verdict = Verdict(
        spec=spec,
        aggregate=aggregate,
        decisive_clips=DECISIVE_CLIPS_DENSE if mode == "full" else DECISIVE_CLIPS_SPARSE,
        mirror=mirrors,
        weights_sha256=manifest.weights_sha256,
        settings_sha256=_settings_sha256(spec, chosen, mirror=mirrors, aggregate=aggregate),
    )
    return Scan(
        plan,
        artefact=artefact,
        sampling=chosen,
        jobs=jobs or min(cpu_count(), MOST_DEFAULT_JOBS),
        device=chosen_device(device),
        verdict=verdict,
    )


class Scan:
    """A scan that runs, once, while it is iterated over.

    Attributes:
        plan: the inputs; `result.index` is a place in `plan.inputs`.
        progress: how far it is.
        device: where the detector runs.
        jobs: how many videos are decoded at once.
    """

    def __init__(
        self, plan: InputPlan, *, artefact: Artefact, sampling: Sampling, jobs: int, device: Device, verdict: Verdict
    ) -> None:
        self.plan = plan
        self.progress = Progress()
        self._begun = False
        self.device = device
        self.jobs = min(jobs, len(plan.inputs))
        self._jobs = [VideoJob(index, planned.path, planned.problem) for index, planned in enumerate(plan.inputs)]
        threads = cpu_count()
        faces = FacesStage(
            yunet.YuNet(device=device, threads=1),
            verdict.spec,
            max_gap_seconds=MAX_GAP_SECONDS if sampling.mode == "full" else math.inf,
            progress=self.progress,
        )
        infer = InferStage(
            OnnxRuntimeBackend(artefact, device=device, threads=threads), verdict, progress=self.progress
        )
        decode = DecodeStage(partial(open_video, threads=max(1, threads // self.jobs)), sampling)
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
        for scored in self._pipeline.results():
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


def _adapted(spec: DetectorSpec, *, threshold: float | None, min_face: int | None) -> DetectorSpec:
    """Return the spec with what the caller wants otherwise."""
    crop = spec.crop if min_face is None else msgspec.structs.replace(spec.crop, min_face_pixels=min_face)
    return msgspec.structs.replace(spec, band=band_with_threshold(spec.band, threshold), crop=crop)


def _settings_sha256(spec: DetectorSpec, sampling: Sampling, *, mirror: bool, aggregate: Aggregate) -> str:
    """Hash all that a score and its label depend on, besides the video and the weights."""
    looks = {"detect_every": sampling.detect_every} if sampling.mode == "full" else {"frames": sampling.frames}
    settings = {
        "version": SCORING_VERSION,
        "spec": {name: value for name, value in json.loads(spec.to_json()).items() if name not in NOT_SCORING},
        "sampling": {"mode": sampling.mode, **looks},
        "mirror": mirror,
        "aggregate": aggregate,
        "face_detector": [yunet.MODEL_SHA256, yunet.SCORE_THRESHOLD, yunet.NMS_THRESHOLD, DETECTION_SIDE],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
