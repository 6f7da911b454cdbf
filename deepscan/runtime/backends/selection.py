"""The backend and the precision that compute an artifact: those asked for, those saved, or the first that `auto` finds.

The answer follows from files, package metadata and the processor's flags alone. So it is the same at every scan of a
machine, and the process that supervises a scan can give it without importing a library that computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from deepscan.errors import MachineError, ModelError
from deepscan.options import Arithmetic
from deepscan.runtime.backends.registry import backend_class, usable_classes
from deepscan.runtime.backends.saved_choices import saved_choice

if TYPE_CHECKING:
    from deepscan.options import PrecisionChoice
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.backends.contract import Backend
    from deepscan.runtime.system.machine import Device

AUTO: Final = "auto"
# Backend and precision of a result, as its row has them: ("onnxruntime-cpu", "fp32").
Computation: TypeAlias = tuple[str, str]
# Names in results of a backend that runs one of several packages.
RESULT_NAMES: Final[dict[str, tuple[str, ...]]] = {"tensorrt": ("tensorrt", "tensorrt-rtx")}


class AutoRow(NamedTuple):
    """One step of the order in which `auto` looks for a backend."""

    device: Device
    backend: str
    condition: str
    reason: str


# The first row whose backend can compute the artifact here is taken, in the artifact's own precision or, where the
# backend lacks that, in the nearest that it has first. Lower precisions are never taken unseen: bfloat16 halves the
# time of AltFreezing and moves its scores by 0.001, but moves a score of `lite` by 0.038, far over the budget of 0.01.
# The figures are in benchmarks/README.md.
AUTO_ORDER: Final = (
    AutoRow("cuda", "tensorrt", "an engine of the artifact was built for this GPU", "built and tuned for this GPU"),
    AutoRow("cuda", "onnxruntime", "onnxruntime-gpu is installed", "runs every artifact"),
    AutoRow("cpu", "openvino", "openvino is installed", "clips in 0.7 of ONNX Runtime's time, crops in the same"),
    AutoRow("cpu", "onnxruntime", "always", "comes with deepscan"),
)


class Candidate(msgspec.Struct, frozen=True):
    """A backend, and the precision of its arithmetic."""

    backend: str
    precision: Arithmetic

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


def candidates(manifest: Manifest, device: Device) -> list[Candidate]:
    """Return every backend and precision that can compute an artifact on a device of this machine."""
    return [
        Candidate(name, precision)
        for name, found in usable_classes().items()
        for precision in found.precisions(manifest, device)
    ]


def auto_candidates(manifest: Manifest, device: Device) -> list[Candidate]:
    """Return those of `candidates` that `auto` may take without having been told so, in its order."""
    return [
        Candidate(row.backend, precision)
        for row in AUTO_ORDER
        if row.device == device
        for precision in backend_class(row.backend).precisions(manifest, device)
    ]


def resolve_backend(manifest: Manifest, *, backend: str, precision: PrecisionChoice, device: Device) -> Candidate:
    """Return the backend and the precision that compute an artifact.

    Args:
        manifest: of the artifact.
        backend: a registered name; or `auto`, which takes what `deepscan bench --save` found to be the fastest here,
            else the first row of `AUTO_ORDER` that fits.
        precision: of the arithmetic; `auto` takes the first that the backend has.
        device: where it runs.

    Raises:
        UsageError: no backend has this name.
        ModelError: nothing computes the artifact in this precision.
    """
    if backend == AUTO:
        found = auto_candidates(manifest, device)
        saved = saved_choice(manifest.sha256, device)
        if saved is not None:
            found.insert(0, Candidate(saved.backend, saved.precision))
    else:
        found = [Candidate(backend, possible) for possible in backend_class(backend).precisions(manifest, device)]
        if not found:
            # The backend knows best what it lacks, and says so when it is opened.
            return Candidate(backend, manifest.precision if precision == AUTO else precision)
    fitting = [candidate for candidate in found if precision in (AUTO, candidate.precision)]
    if not fitting:
        by = "" if backend == AUTO else f" by {backend}"
        raise ModelError(
            f"{manifest.file}, which is {manifest.precision}, is not computed in {precision}{by} on this {device}: "
            f"use one of {', '.join(map(str, candidates(manifest, device)))}."
        )
    return fitting[0]


def accepted_computations(
    manifest: Manifest, *, backend: str, precision: PrecisionChoice, device: Device
) -> frozenset[Computation]:
    """Return the computations whose earlier results count as results of this scan, without loading anything.

    Results count as computed alike if backend, kind of device and precision are equal; versions, threads, and which
    GPU or which of TensorRT's two packages it was do not matter. That is the one computation that `resolve_backend`
    gives, and on GPUs also the one that stands in on the CPU when a GPU's worker has died: what `auto` takes there.

    Raises:
        UsageError: no backend has this name.
        ModelError: nothing computes the artifact in this precision.
    """
    resolved = [(resolve_backend(manifest, backend=backend, precision=precision, device=device), device)]
    if device != "cpu":
        resolved.append((resolve_backend(manifest, backend=AUTO, precision=AUTO, device="cpu"), "cpu"))
    return frozenset(
        (f"{name}-{where}", candidate.precision)
        for candidate, where in resolved
        for name in RESULT_NAMES.get(candidate.backend, (candidate.backend,))
    )


def open_backend(candidate: Candidate, artifact: Artifact, *, device: Device, threads: int) -> Backend:
    """Load an artifact into a backend, see `BackendClass`.

    Raises:
        UsageError: no backend has this name.
        MachineError: the backend is not installed, cannot be used on this machine, or computes otherwise than asked.
        ModelError: the backend cannot compute this artifact.
    """
    made = backend_class(candidate.backend)
    opened = made(artifact, device=device, threads=threads, precision=candidate.precision)
    expected = [f"{name}-{device}" for name in RESULT_NAMES.get(candidate.backend, (candidate.backend,))]
    if opened.name not in expected or opened.precision != candidate.precision:
        opened.close()
        raise MachineError(
            f"{candidate} should compute {artifact.manifest.file} on {device}, but {opened.name} {opened.precision} "
            "was loaded: use another --backend."
        )
    return opened
