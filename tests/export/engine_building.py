"""What tests of engines build with, and from what."""

from __future__ import annotations

from typing import Final

from deepscan.export.engine_builder import build_engine
from deepscan.runtime.artifacts.artifacts import Artifact
from deepscan.runtime.backends.tensorrt.engine_store import Engine
from tests.runtime.tiny_detectors import TINY_FRAME, tiny_artifact

ARCHITECTURES: Final = ("8.0", "8.6", "8.9", "12.0")
WORKSPACE: Final = 1 << 30


def tiny() -> Artifact:
    return tiny_artifact(TINY_FRAME)


def build(
    artifact: Artifact,
    architecture: str | None = "8.6",
    *,
    max_batch: int = 4,
    workspace_bytes: int = WORKSPACE,
) -> Engine:
    return build_engine(
        artifact,
        flavor="tensorrt-rtx",
        compute_capability=architecture,
        max_batch=max_batch,
        workspace_bytes=workspace_bytes,
    )
