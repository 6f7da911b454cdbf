"""Records of a benchmark: tasks of its processes, their answers, and the report."""

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
# Last line that a process writes.
END: Final = b"\n"
MACHINE_AT_FAULT: Final = MachineError.exit_code


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of all measurements.

    Attributes:
        device, threads: where the detectors run, and with how many threads of a CPU.
        batches: batch sizes, ascending; None takes the powers of two up to the largest batch of a backend.
        seconds: approximate time for each batch size, without warm-up.
    """

    device: Device
    threads: int
    batches: tuple[int, ...] | None
    seconds: float


class BackendTask(msgspec.Struct, frozen=True, kw_only=True, tag="backend"):
    """Task of measuring a detector on one backend.

    Attributes:
        model: name or path of the detector, as for `load_artifact`.
        backend, precision: candidate.
        inputs: path of a .npy file of real crops or clips, uint8 [M, *item_shape].
    """

    model: str
    backend: str
    precision: Arithmetic
    inputs: str
    setup: BenchSettings


class RateTask(msgspec.Struct, frozen=True, kw_only=True, tag="rate"):
    """Task of measuring the machine's matrix products."""

    precision: RatePrecision
    setup: BenchSettings


Task: TypeAlias = BackendTask | RateTask


class Measurement(msgspec.Struct, frozen=True, kw_only=True, tag="measurement"):
    """Result of one batch size on one backend.

    Attributes:
        model, backend: names, as requested.
        ran_as: name and device that the backend reports.
        latency: time of one batch, from pixels in host memory to logits in host memory.
        items_per_second: rate of crops or clips.
        ready_seconds: time from loading the file to the first result of the first batch size.
        memory_bytes: largest resident size of the process so far, loading included; None if unknown.
        gpu_memory_bytes: GPU memory of the process after the last run, as the driver reports it, which is wrong if
            other processes begin or end meanwhile. None on a CPU and if unknown.
        matmul_fraction: arithmetic of the graph per second, as a fraction of the rate of matrix products; None if
            either is unknown.
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
    """Rate of products of `side` x `side` matrices with ONNX Runtime, counting multiplications and additions."""

    device: Device
    precision: RatePrecision
    side: int
    flop_per_second: float


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """Failure of a measurement: for matrix products, `model` is `MATRIX_PRODUCTS` and `backend` None."""

    model: str
    backend: str | None
    precision: Arithmetic
    reason: str
    exit_code: int


Answer: TypeAlias = Measurement | MatmulRate | Failure


class BenchResult(msgspec.Struct, frozen=True, kw_only=True, tag="artifact"):
    """Artifact that was measured, and its inputs.

    Attributes:
        model: name or path, as requested.
        file, sha256, size_bytes: name, hash and size of the ONNX file.
        weights_sha256, trained, precision, form: as in its manifest.
        flop_per_item: multiplications plus additions of Conv, Gemm and MatMul; None if shapes are unknown.
        inputs, inputs_sha256: number of real crops or clips, and hash of their pixels.
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
    """Report of a benchmark.

    Attributes:
        schema: version of this record's format.
        complete: False if it was interrupted.
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
    """Return the precision of the matrix products to compare with: float32, or float16 on CUDA for 16 bits or less.

    On a CPU, bfloat16 and int8 may therefore exceed the rate.
    """
    return "fp16" if device == "cuda" and precision != "fp32" else "fp32"


def failure_of(task: Task, reason: str, exit_code: int) -> Failure:
    """Return the record of a task that failed."""
    model, backend = (task.model, task.backend) if isinstance(task, BackendTask) else (MATRIX_PRODUCTS, None)
    return Failure(model=model, backend=backend, precision=task.precision, reason=reason, exit_code=exit_code)
