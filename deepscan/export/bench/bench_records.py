"""What a benchmark is made of: the tasks of its processes, what they answer, and the report."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from deepscan.errors import MachineError
from deepscan.export.bench.latency import Latency
from deepscan.export.bench.matmul_rate import RatePrecision
from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import Form, Precision
from deepscan.runtime.system.machine import Device, Environment

MATRIX_PRODUCTS: Final = "matrix products"
# What a process writes when it has said everything.
END: Final = b"\n"
MACHINE_AT_FAULT: Final = MachineError.exit_code


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How everything is measured.

    Attributes:
        device: where the detectors run.
        threads: of a backend, on a CPU.
        batches: sizes, ascending; None takes the powers of two up to the largest batch that a backend takes.
        seconds: how long each batch size is measured, about; warming up comes on top.
    """

    device: Device
    threads: int
    batches: tuple[int, ...] | None
    seconds: float


class BackendTask(msgspec.Struct, frozen=True, kw_only=True, tag="backend"):
    """Measure a detector on one backend.

    Attributes:
        model: what `load_artifact` takes.
        backend, precision: the candidate.
        inputs: path of a .npy file of real crops or clips, uint8 [M, *item_shape].
        setup: how.
    """

    model: str
    backend: str
    precision: Arithmetic
    inputs: str
    setup: BenchSettings


class RateTask(msgspec.Struct, frozen=True, kw_only=True, tag="rate"):
    """Measure the machine's matrix products."""

    precision: RatePrecision
    setup: BenchSettings


Task: TypeAlias = BackendTask | RateTask


class Measurement(msgspec.Struct, frozen=True, kw_only=True, tag="measurement"):
    """One batch size on one backend.

    Attributes:
        model: the detector, as it was asked for.
        backend: who was asked to run it.
        ran_as: what says to have run it, and where.
        precision: of the arithmetic.
        batch: items at once.
        latency: of one batch, from pixels in host memory to logits there, so the device was waited for.
        items_per_second: crops or clips.
        ready_seconds: from loading the file to the first answer, of the first batch size.
        memory_bytes: largest resident size of the process so far, loading included; None where it is not known.
        gpu_memory_bytes: what the process held on the GPU after the last run, as the driver sees it; other processes
            that begin or end meanwhile spoil it. None on a CPU and where it is not known.
        matmul_fraction: arithmetic of the graph per second, as a fraction of the rate of matrix products; None where
            either is not known.
    """

    model: str
    backend: str
    ran_as: str
    precision: Arithmetic
    batch: int
    latency: Latency
    items_per_second: float
    ready_seconds: float
    memory_bytes: int | None
    gpu_memory_bytes: int | None
    matmul_fraction: float | None = None


class MatmulRate(msgspec.Struct, frozen=True, kw_only=True, tag="matmul_rate"):
    """How fast the machine multiplies matrices of `side` x `side`, with ONNX Runtime; additions count too."""

    device: Device
    precision: RatePrecision
    side: int
    flop_per_second: float


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """What could not be measured.

    Attributes:
        model: the detector, or `MATRIX_PRODUCTS`.
        backend, precision: the candidate; None for matrix products.
        reason: why not, to show.
        exit_code: see `deepscan.errors`.
    """

    model: str
    backend: str | None
    precision: Arithmetic
    reason: str
    exit_code: int


Answer: TypeAlias = Measurement | MatmulRate | Failure


class BenchResult(msgspec.Struct, frozen=True, kw_only=True, tag="artifact"):
    """The artifact that was measured, and with what.

    Attributes:
        model: the detector, as it was asked for.
        file, sha256, size_bytes: of the ONNX file.
        weights_sha256: of the weights' file.
        trained: False for random weights, which take the same time.
        precision: of the graph.
        form: of a clip detector's convolutions.
        kind: whether an item is a crop or a clip.
        flop_per_item: multiplications plus additions of Conv, Gemm and MatMul; None where shapes are not known.
        inputs: how many real crops or clips it got.
        inputs_sha256: of their pixels.
    """

    model: str
    file: str
    sha256: str
    size_bytes: int
    weights_sha256: str
    trained: bool
    precision: Precision
    form: Form | None
    kind: Literal["crop", "clip"]
    flop_per_item: int | None
    inputs: int
    inputs_sha256: str


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured.

    Attributes:
        schema: version of this record's format.
        complete: False where it was interrupted.
        machine: what it was measured on.
        setup: how.
        rates: the machine's matrix products.
        artifacts: what was measured.
        measurements: the figures.
        failures: what could not be measured.
    """

    schema: Literal[1] = 1
    complete: bool
    machine: Environment
    setup: BenchSettings
    rates: tuple[MatmulRate, ...]
    artifacts: tuple[BenchResult, ...]
    measurements: tuple[Measurement, ...]
    failures: tuple[Failure, ...]


def rate_precision(precision: Arithmetic, device: Device) -> RatePrecision:
    """Return with which matrix products a precision is compared: float32, on CUDA float16 for what has 16 bits or less.

    bfloat16 and int8 on a CPU may so exceed the rate.
    """
    return "fp16" if device == "cuda" and precision != "fp32" else "fp32"


def failure_of(task: Task, reason: str, exit_code: int) -> Failure:
    """Return the record of a task that failed."""
    model, backend = (task.model, task.backend) if isinstance(task, BackendTask) else (MATRIX_PRODUCTS, None)
    return Failure(model=model, backend=backend, precision=task.precision, reason=reason, exit_code=exit_code)
