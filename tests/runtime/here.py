"""Scans in the process of the test itself, for tests that look inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from deepscan.options import ScanOptions
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.pipeline_scan import ON_CPU, Decoders, PipelineScan
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.system.machine import cpu_count


def scan_here(paths: Sequence[str | os.PathLike[str]], *, model: str = "lite", **given: Any) -> PipelineScan:
    """Return a scan of files with one decoder, with these fields of `ScanOptions`."""
    settings = resolve_settings(ScanOptions(model=model, **given))
    backend = OnnxRuntimeBackend(load_artifact(model), device="cpu", threads=cpu_count(), precision="fp32")
    return PipelineScan(
        [VideoJob(index, os.fspath(path)) for index, path in enumerate(paths)],
        settings=settings,
        face_detector=settings.load_face_detector("cpu"),
        backends=[backend],
        decoders=Decoders(1, 1),
        bounds=ON_CPU,
    )
