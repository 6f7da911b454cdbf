"""The pipeline of one worker: from jobs to results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from deepscan.results import VideoResult
from deepscan.runtime.faces.cropping import crop_specs_for
from deepscan.runtime.faces.detections import FaceDetector
from deepscan.runtime.faces.following import FaceFollower, Follower
from deepscan.runtime.faces.tracking import LargestFace, Tracker
from deepscan.runtime.faces.unbroken_tracks import UnbrokenFollower
from deepscan.runtime.media.decoder_choice import DeviceDecoding
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.pipeline.frame_parts import FrameRecorder
from deepscan.runtime.pipeline.infer_stage import InferStage
from deepscan.runtime.pipeline.pipeline import (
    UNOBSERVED,
    Pipeline,
    PipelineObserver,
    Progress,
    Source,
    Stage,
    StageTimes,
)
from deepscan.runtime.pipeline.settings import ScanSettings
from deepscan.runtime.pipeline.stages import DETECTION_BATCH, DecodeStage, FacesStage

if TYPE_CHECKING:
    from deepscan.runtime.backends.contract import Backend

# A track continues after its face was out of sight for this long; with frames seconds apart, after any time.
MAX_GAP_SECONDS: Final = 1.0
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes between the stages, messages that faces and infer take at once, and pictures searched together."""

    decoded_bytes: int
    crop_bytes: int
    frames_at_once: int
    crops_at_once: int
    detection_batch: int


RESULTS_WAITING_BYTES: Final = MIB
ON_CPU: Final = Bounds(24 * MIB, 8 * MIB, frames_at_once=4, crops_at_once=16, detection_batch=DETECTION_BATCH)
# On a GPU, starting small pieces of work costs as much as starting large ones. 256 MiB are 80 frames of 1080p, or 50
# clips of 32 crops of 224 pixels.
ON_GPU: Final = Bounds(256 * MIB, 256 * MIB, frames_at_once=64, crops_at_once=64, detection_batch=16)


@dataclass(frozen=True, slots=True, eq=False)
class Decoders:
    """Decoders of one worker: how many videos at once, with how many CPU threads each, and how on a GPU if at all."""

    count: int
    threads: int
    on_gpu: DeviceDecoding | None = None


class PipelineScan:
    """Scans in this process, once; `progress` tells how far it is.

    Jobs are taken one by one, whenever a decoder is free, from several threads but never from two at once. Backends are
    those of the detectors in order, and closed at the end.
    """

    def __init__(
        self,
        jobs: Iterable[VideoJob],
        *,
        settings: ScanSettings,
        face_detector: FaceDetector,
        backends: Sequence[Backend],
        decoders: Decoders,
        bounds: Bounds,
        observer: PipelineObserver = UNOBSERVED,
        recorder: FrameRecorder | None = None,
    ) -> None:
        self.progress = Progress()
        self._backends = backends
        faces = FacesStage(
            face_detector,
            _followers_maker(settings, self.progress.move),
            progress=self.progress,
            work=decoders.on_gpu.work if decoders.on_gpu is not None else None,
            batch=bounds.detection_batch,
        )
        infer = InferStage(
            list(zip(backends, settings.scoring, strict=True)), progress=self.progress, recorder=recorder
        )
        opened = partial(open_input, threads=decoders.threads, limits=settings.limits, moved=self.progress.move)
        decode = DecodeStage(
            partial(opened, decoding=decoders.on_gpu),
            settings.sampling,
            detection_side=settings.detection_side,
            on_cpu=opened,
            limits=settings.limits,
            moved=self.progress.move,
        )
        self._pipeline = Pipeline(
            jobs,
            Source("decode", decode, decoders.count, bounds.decoded_bytes, subject=lambda job: str(job.path)),
            [
                Stage("faces", faces, batch=bounds.frames_at_once, max_bytes=bounds.crop_bytes),
                Stage("infer", infer, batch=bounds.crops_at_once, max_bytes=RESULTS_WAITING_BYTES),
            ],
            observer=observer,
        )

    def __iter__(self) -> Iterator[tuple[VideoResult, ...]]:
        """Run, and yield the results of each video together; leaving the loop early stops and joins all threads."""
        with ExitStack() as stack:
            for backend in self._backends:
                stack.callback(backend.close)
            # Closed before the backends, so that no thread computes any more.
            for scored in stack.enter_context(closing(self._pipeline.results())):
                yield scored.results

    def stage_times(self) -> list[StageTimes]:
        """Return the times of each stage so far."""
        return self._pipeline.times()


def _followers_maker(settings: ScanSettings, moved: Callable[[], None]) -> Callable[[VideoJob], list[Follower]]:
    """Return a function that creates the followers of a video; it does not keep models alive."""
    specs = crop_specs_for([each.spec for each in settings.scoring], whole_pictures=settings.whole_pictures)
    sampling, stride, limits = settings.sampling, settings.stride, settings.limits
    if sampling.twice:
        return lambda job: [UnbrokenFollower(job, spec, stride=stride, limits=limits, moved=moved) for spec in specs]
    if settings.largest_face:
        return lambda job: [FaceFollower(job, spec, LargestFace(), joins_gaps=True, limits=limits) for spec in specs]
    gap = MAX_GAP_SECONDS if sampling.choice == "all" else math.inf
    followed = partial(FaceFollower, marks_glimpses=not sampling.sparse, limits=limits)
    return lambda job: [followed(job, spec, Tracker(max_gap_seconds=gap)) for spec in specs]
