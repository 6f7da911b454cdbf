"""Parts of a scan alone: the stages of a real scan's pipeline, each run by itself on held messages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deepscan.options import BACKEND_VARIABLE, PrecisionChoice, ScanOptions
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.selection import open_backend, resolve_backend
from deepscan.runtime.faces.cropping import Timed, crop_specs_for, face_input
from deepscan.runtime.faces.detections import Detection, Faces
from deepscan.runtime.media.decoder_choice import DecoderCounts, DeviceDecoding
from deepscan.runtime.media.device_work import DevicePicture, DeviceWork
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.pipeline.pipeline import Pipeline
from deepscan.runtime.pipeline.pipeline_scan import ON_CPU, ON_GPU, Decoders, PipelineScan
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.pipeline.stages import FacesStage
from deepscan.runtime.system.machine import Device, cpu_count


class StagesAlone:
    """Frames, faces and crops of some videos, held in memory, for each part to work on.

    Args:
        paths: short videos, as their frames are all held; on a GPU they are in its memory.
        model: the detector.
        device: where.
    """

    def __init__(self, paths: Sequence[Path], model: str, *, device: Device) -> None:
        pipeline = worker_pipeline(model, device=device)
        self._faces_stage, self._infer_stage = pipeline.stages
        self._looks: list[Any] = [
            message
            for number, path in enumerate(paths)
            for message in pipeline.source.function(VideoJob(number, str(path)))
        ]
        self.frames = sum(isinstance(message, FrameTask) for message in self._looks)
        self._found = list(self._searched())
        (self._cut,) = crop_specs_for([load_artifact(model).manifest.spec], whole_pictures=False)
        self._crops = list(_batched(self._faces_stage, self._looks))

    def seconds(self, part: str, times: int) -> float:
        """Run `detect`, `preprocess` or `infer` over all videos, so many times."""
        works: dict[str, Callable[[], object]] = {
            "detect": lambda: list(self._searched()),
            "preprocess": self._cut_all,
            "infer": lambda: list(_batched(self._infer_stage, self._crops)),
        }
        started = time.perf_counter()
        for _ in range(times):
            works[part]()
        return time.perf_counter() - started

    def _searched(self) -> Iterator[Faces]:
        """Search the frames that a scan searches; shrinking them belongs to decoding, and on a GPU to this."""
        faces: FacesStage = self._faces_stage.function  # type: ignore[assignment]
        wanted = [look for look in self._looks if isinstance(look, FrameTask) and look.small is not None]
        for start in range(0, len(wanted), self._faces_stage.batch):
            yield from faces._detected(wanted[start : start + self._faces_stage.batch])

    def _cut_all(self) -> None:
        """Cut every frame's faces where the last searched frame has them, and join them to clips of one video."""
        found, faces, job = iter(self._found), None, None
        waiting: list[Timed] = []
        looks = [look for look in self._looks if isinstance(look, FrameTask)]
        for number, look in enumerate(looks, 1):
            if look.job is not job:
                job, waiting = look.job, []
            faces = faces if look.small is None else next(found)
            assert faces is not None
            for face in range(len(faces)):
                at = Detection(faces.boxes[face], faces.landmarks[face])
                waiting.append(Timed.of(look.frame, at, self._cut, look.position))
            if self._cut.frames > 1 and len(waiting) >= self._cut.frames:
                face_input(look.job, self._cut, 0, waiting[: self._cut.frames])
                del waiting[: self._cut.frames]
            picture, last = look.frame.picture, number == len(looks)
            if isinstance(picture, DevicePicture) and (last or number % self._faces_stage.batch == 0):
                picture.work.finish()


def worker_pipeline(
    model: str, *, device: Device, backend: str | None = None, precision: PrecisionChoice = "auto"
) -> Pipeline:
    """Return the pipeline of one worker, in this process; on a GPU it decodes there, so that the frames are there."""
    settings = resolve_settings(ScanOptions(model=model))
    wanted = backend or os.environ.get(BACKEND_VARIABLE) or "auto"
    artifact = load_artifact(model)
    candidate = resolve_backend(artifact.manifest, backend=wanted, precision=precision, device=device)
    opened = open_backend(candidate, artifact, device=device, threads=cpu_count())
    scan = PipelineScan(
        [],
        settings=settings,
        face_detector=settings.load_face_detector(device),
        backends=[opened],
        decoders=Decoders(1, cpu_count(), _decoding() if device == "cuda" else None),
        bounds=ON_GPU if device == "cuda" else ON_CPU,
    )
    return scan._pipeline


def _decoding() -> DeviceDecoding:
    from deepscan.runtime.cuda.cuda_device import CudaDevice
    from deepscan.runtime.cuda.nvdec import nvdec

    gpu = CudaDevice()
    return DeviceDecoding(gpu.ordinal, gpu, DeviceWork(gpu.queue()), nvdec(), "nvdec", DecoderCounts())


def _batched(stage: Any, messages: list[Any]) -> Iterator[Any]:
    for start in range(0, len(messages), stage.batch):
        yield from stage.function(messages[start : start + stage.batch])
