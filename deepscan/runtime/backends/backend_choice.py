"""Which backend executes an artifact, and in which precision: what is asked for, or what was measured to be fastest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from deepscan.errors import DeepscanError, ModelError
from deepscan.export.parity.conversion import Report, silence
from deepscan.options import Arithmetic, BackendChoice, BackendName, PrecisionChoice
from deepscan.runtime.backends.backend_trials import fastest
from deepscan.runtime.backends.choice_records import choice_path, recall, remember
from deepscan.runtime.system.machine import Environment, environment

if TYPE_CHECKING:
    from deepscan.runtime.artifacts.artifacts import Artifact, Precision
    from deepscan.runtime.backends.backends import Backend
    from deepscan.runtime.system.machine import Device

NAMES: Final[tuple[BackendName, ...]] = ("onnxruntime", "openvino", "torch", "tensorrt")
FLOATS_ON_CPU: Final[tuple[Arithmetic, ...]] = ("fp32", "bf16")
# How results call a backend, where that is not its name here.
RESULT_NAMES: Final[dict[BackendName, tuple[str, ...]]] = {"tensorrt": ("tensorrt", "tensorrt-rtx")}
# The backend and the precision of a result, as its row has them: ("onnxruntime-cpu", "fp32").
Computation: TypeAlias = tuple[str, str]


class Candidate(msgspec.Struct, frozen=True):
    """A backend, and the precision of its arithmetic."""

    backend: BackendName
    precision: Arithmetic

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


def candidates(artifact: Artifact, device: Device) -> list[Candidate]:
    """Return all that can compute an artifact on a device of this machine, ONNX Runtime first."""
    native = artifact.manifest.precision
    return [Candidate(name, precision) for name in NAMES for precision in _arithmetic(name, native, device)]


def auto_candidates(artifact: Artifact, device: Device) -> list[Candidate]:
    """Return those of `candidates` that `auto` measures.

    On a CPU torch is none of them: it takes seconds to import, and runs operator by operator, slower than the others.
    """
    return [found for found in candidates(artifact, device) if (found.backend, device) != ("torch", "cpu")]


def open_backend(candidate: Candidate, artifact: Artifact, *, device: Device, threads: int) -> Backend:
    """Load an artifact into a backend.

    Args:
        candidate: which, and in what it shall compute.
        artifact: the detector.
        device: where.
        threads: of one run, on a CPU.

    Raises:
        MachineError: the backend is not installed, or cannot be used on this machine.
        ModelError: the backend cannot compute this artifact.
    """
    precision = candidate.precision
    match candidate.backend:
        case "onnxruntime":
            from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend

            return OnnxRuntimeBackend(artifact, device=device, threads=threads, precision=precision)
        case "openvino":
            from deepscan.runtime.backends.openvino_backend import OpenVinoBackend

            return OpenVinoBackend(artifact, device=device, threads=threads, precision=precision)
        case "torch":
            from deepscan.runtime.backends.torch_backend import TorchBackend

            return TorchBackend(artifact, device=device, threads=threads, precision=precision)
        case "tensorrt":
            from deepscan.runtime.backends.tensorrt.tensorrt_backend import TensorRtBackend

            return TensorRtBackend(artifact, device=device, threads=threads, precision=precision)


def resolve_backend(
    artifact: Artifact,
    *,
    backend: BackendChoice,
    precision: PrecisionChoice,
    device: Device,
    threads: int,
    report: Report = silence,
) -> Backend:
    """Load an artifact into the backend that is asked for, or into the fastest one.

    Where more than one candidate is left, they are measured, once per artifact, device, number of threads, machine and
    versions of the packages; see `backend_trials`. The result is kept, for programs and for people, in
    <data folder>/choices/<hash>.json. Whoever names both backend and precision gets that, and nothing is measured.

    Args:
        artifact: the detector.
        backend: `auto` takes any, on a CPU any but torch (see `auto_candidates`).
        precision: of the arithmetic; `auto` takes any whose scores agree with those of ONNX Runtime on the CPU.
        device: where.
        threads: of one run, on a CPU.
        report: takes a line for people when something is measured.

    Raises:
        MachineError: the backend is not installed, or cannot be used on this machine.
        ModelError: nothing computes the artifact in this precision, or it cannot be run.
    """
    wanted = _wanted(artifact, backend, precision, device)
    opened = partial(_opened, artifact, device, threads)
    if len(wanted) == 1:
        return opened(wanted[0])
    machine = environment()
    key = _key(artifact, wanted, device=device, threads=threads, machine=machine)
    known = recall(key)
    if known is not None and Candidate(known.backend, known.precision) in wanted:
        return opened(Candidate(known.backend, known.precision))
    source = artifact.manifest.file
    report(f"{source}: measuring {', '.join(map(str, wanted))}, which is done once")
    choice, taken = fastest(
        artifact,
        wanted,
        opened,
        partial(_reference, artifact, threads),
        device=device,
        threads=threads,
        machine=machine,
    )
    report(f"{source}: {choice.backend} {choice.precision} is taken: {choice.reason}")
    try:
        remember(key, choice)
    except OSError as error:
        report(f"{choice_path(key)} cannot be written ({error.strerror}): it will be measured again")
    return taken


def accepted_computations(
    artifact: Artifact, backend: BackendChoice, precision: PrecisionChoice, device: Device
) -> frozenset[Computation]:
    """Return what may compute the results of a scan, without loading anything.

    A backend and a precision that are named are taken, on this kind of device; `auto` may take any of
    `auto_candidates`. On GPUs it may also be what stands in on the CPU for a GPU's worker that died, whatever was asked
    for (see `started_worker`): any CPU backend but torch.

    Raises:
        ModelError: nothing computes the artifact in this precision.
    """
    accepted = {
        (f"{name}-{device}", candidate.precision)
        for candidate in _wanted(artifact, backend, precision, device)
        for name in RESULT_NAMES.get(candidate.backend, (candidate.backend,))
    }
    if device != "cpu":
        native = artifact.manifest.precision
        accepted |= {("onnxruntime-cpu", arithmetic) for arithmetic in _arithmetic("onnxruntime", native, "cpu")}
        # Whether OpenVINO is there, and what this processor multiplies in, is not worth loading it for.
        accepted |= {("openvino-cpu", arithmetic) for arithmetic in (("int8",) if native == "int8" else FLOATS_ON_CPU)}
    return frozenset(accepted)


def _opened(artifact: Artifact, device: Device, threads: int, candidate: Candidate) -> Backend:
    return open_backend(candidate, artifact, device=device, threads=threads)


def _reference(artifact: Artifact, threads: int) -> Backend:
    """Load what gives the right scores: the parity gate, too, compares what ONNX Runtime computes on a CPU."""
    (precision,) = _arithmetic("onnxruntime", artifact.manifest.precision, "cpu")
    return open_backend(Candidate("onnxruntime", precision), artifact, device="cpu", threads=threads)


def _arithmetic(name: BackendName, precision: Precision, device: Device) -> tuple[Arithmetic, ...]:
    match name:
        case "onnxruntime":
            from deepscan.runtime.backends.onnxruntime_backend import arithmetic
        case "openvino":
            from deepscan.runtime.backends.openvino_backend import arithmetic
        case "torch":
            from deepscan.runtime.backends.torch_backend import arithmetic
        case "tensorrt":
            from deepscan.runtime.backends.tensorrt.tensorrt_backend import arithmetic
    return arithmetic(precision, device)


def _wanted(artifact: Artifact, backend: BackendChoice, precision: PrecisionChoice, device: Device) -> list[Candidate]:
    """Return the candidates that fit, at least one.

    Raises:
        ModelError: none has the precision.
    """
    there = candidates(artifact, device)
    if backend == "auto":
        named = auto_candidates(artifact, device)
    else:
        named = [candidate for candidate in there if candidate.backend == backend]
        if not named:
            # It knows best what it lacks, and says so when it is opened.
            return [Candidate(backend, artifact.manifest.precision if precision == "auto" else precision)]
    fitting = [candidate for candidate in named if precision in ("auto", candidate.precision)]
    if not fitting:
        by = "" if backend == "auto" else f" by {backend}"
        raise ModelError(
            f"{artifact.manifest.file}, which is {artifact.manifest.precision}, is not computed in {precision}{by} on "
            f"this {device}: use one of {', '.join(map(str, there))}."
        )
    return fitting


def _key(artifact: Artifact, wanted: Sequence[Candidate], *, device: Device, threads: int, machine: Environment) -> str:
    """Hash all that a measurement depends on."""
    counted = {
        "sha256": artifact.manifest.sha256,
        "candidates": wanted,
        "device": device,
        "threads": threads,
        "machine": machine,
        "engine": _engine(artifact) if any(candidate.backend == "tensorrt" for candidate in wanted) else "",
    }
    return hashlib.sha256(msgspec.json.encode(counted, order="deterministic")).hexdigest()


def _engine(artifact: Artifact) -> str:
    """Tell one state of TensorRT's engine from another: what was measured before it was built does not hold after."""
    from deepscan.runtime.backends.tensorrt.tensorrt_backend import built_engine

    try:
        _, engine = built_engine(artifact.manifest)
    except DeepscanError as error:
        return str(error)
    return engine.manifest.sha256
