"""The record of an engine, and what decides whether the engine may be used: the manifest beside each plan.

What has to be equal, and why:

- The version, to the last digit: both packages refuse engines of another one ("Engine Compatibility" in their
  documentation).
- The compute capability: engines hold instructions of one architecture.
- With `tensorrt`, the GPU's name and the driver: kernels were chosen by timing them on that GPU, its documentation
  binds an engine to the type of device that built it, and users saw plans fail between two drivers on the same GPU
  (NVIDIA/TensorRT issue 3829). With `tensorrt-rtx` neither: it compiles kernels on the machine that runs them, its
  engines are made to be built elsewhere ("CPU-Only AOT"), and it checks the driver itself (`get_engine_validity`).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from deepscan.runtime.artifacts.artifacts import Manifest, Precision

Flavor: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
FLAVORS: Final[tuple[Flavor, ...]] = ("tensorrt", "tensorrt-rtx")
# Files are named by it, so it must not lead out of their folder.
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
TITLES: Final[dict[Flavor, str]] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine is built for, or shall run on.

    Attributes:
        compute_capability: of the GPU, such as 8.6.
        gpu: its name; None where the engine was built for a GPU that was not there.
        driver: version of NVIDIA's driver, likewise.
    """

    compute_capability: str
    gpu: str | None = None
    driver: str | None = None


class BatchProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The batch sizes that an engine takes, and the one it is tuned for."""

    smallest: int
    tuned: int
    largest: int


class EngineManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine is.

    Attributes:
        schema: version of this record's format.
        detector: name of the detector.
        precision: of the artifact.
        onnx_sha256: of the ONNX file that it was built from.
        weights_sha256: of the file the weights came from.
        flavor: the package that built it.
        version: of that package, exactly.
        target: what it was built for.
        batches: the batch sizes it takes.
        workspace_bytes: what a single layer was allowed to use beside inputs and outputs.
        sha256: of the plan.
        size_bytes: of the plan.
        built: when, in seconds since 1970.
        build_seconds: how long it took.
        warnings: what the package said while it was built.
    """

    schema: Literal[1] = 1
    detector: str
    precision: Precision
    onnx_sha256: str
    weights_sha256: str
    flavor: Flavor
    version: str
    target: Target
    batches: BatchProfile
    workspace_bytes: int
    sha256: Sha256
    size_bytes: int
    built: float
    build_seconds: float
    warnings: tuple[str, ...]


def mismatch(engine: EngineManifest, artifact: Manifest, flavor: Flavor, *, version: str, target: Target) -> str:
    """Say what forbids to use an engine; empty where nothing does, for the reasons given above."""
    package, built = TITLES[flavor], engine.target
    if engine.flavor != flavor:
        return f"was built by {TITLES[engine.flavor]}, not by {package}"
    if engine.version != version:
        return f"was built by {package} {engine.version}, and this is {version}"
    if built.compute_capability != target.compute_capability:
        return f"was built for compute capability {built.compute_capability}, and this is {target.compute_capability}"
    if flavor == "tensorrt" and built.gpu != target.gpu:
        return f"was built for {built.gpu}, and this is {target.gpu}"
    if flavor == "tensorrt" and built.driver != target.driver:
        return f"was built with driver {built.driver}, and this is {target.driver}"
    if engine.onnx_sha256 != artifact.sha256:
        return f"was built from another {artifact.file}"
    return ""
