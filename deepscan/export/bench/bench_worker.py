"""Measurement of one detector on one backend in a process of its own, so that memory and libraries' state do not mix.

    python -m deepscan.export.bench.bench_worker PARENT FD TASK

PARENT is the process that asks, TASK is JSON. Answers, one JSON object a line, go to the file descriptor FD, followed
by an empty line; libraries may write anything to stdout.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from deepscan.errors import DeepscanError, UsageError
from deepscan.export.bench.bench_records import (
    END,
    MACHINE_AT_FAULT,
    Answer,
    BackendTask,
    MatmulRate,
    Measurement,
    Task,
    failure_of,
)
from deepscan.export.bench.latency import measured_latency
from deepscan.export.bench.matmul_rate import SIDES, matmul_rate
from deepscan.naming import speak_as_command_line
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.selection import Candidate, open_backend
from deepscan.runtime.system.machine import CUDA_DRIVER, NVML, TEXT_BYTES
from deepscan.runtime.system.processes import describe_exit, die_with_parent

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKER: Final = "deepscan.export.bench.bench_worker"
# Time for libraries to release what they hold; then the process is killed.
SHUTDOWN_TIMEOUT_SECONDS: Final = 20.0
# Number of batches taken in turns, so that no run repeats the one before it if there are several items.
DIFFERENT: Final = 4
STATUS: Final = Path("/proc/self/status")


def measurements(task: BackendTask) -> Iterator[Measurement]:
    """Load a detector and measure each batch size.

    Raises:
        UsageError: a batch size that was asked for is too large; all others were measured.
        MachineError: the backend cannot be used here.
        ModelError: the detector cannot be loaded or run.
    """
    setup, items = task.setup, np.load(task.inputs)
    gpu_before = gpu_memory_used() if setup.device == "cuda" else None
    started = time.perf_counter()
    candidate = Candidate(task.backend, task.precision)
    backend = open_backend(candidate, load_artifact(task.model), device=setup.device, threads=setup.threads)
    try:
        sizes = batch_sizes(setup.batches, backend.max_batch)
        backend.logits(different_batches(items, sizes[0] if sizes else 1)[0])
        ready_seconds = time.perf_counter() - started
        for size in sizes:
            runs = map(backend.logits, itertools.cycle(different_batches(items, size)))
            latency = measured_latency(partial(next, runs), seconds=setup.seconds)
            gpu_after = None if gpu_before is None else gpu_memory_used()
            yield Measurement(
                model=task.model,
                backend=task.backend,
                ran_as=backend.name,
                precision=backend.precision,
                batch=size,
                latency=latency,
                items_per_second=size * latency.runs / latency.total_seconds,
                ready_seconds=ready_seconds,
                memory_bytes=peak_resident_bytes(),
                gpu_memory_bytes=None if gpu_before is None or gpu_after is None else gpu_after - gpu_before,
            )
        if setup.batches is not None and setup.batches[-1] > backend.max_batch:
            raise UsageError(f"a batch of {setup.batches[-1]} is more than the {backend.max_batch} that it takes.")
    finally:
        backend.close()


def batch_sizes(wanted: tuple[int, ...] | None, largest: int) -> list[int]:
    """Return the sizes, ascending, up to the largest that the backend takes; by default powers of two.

    In this order the peak of memory belongs to the largest so far.
    """
    if wanted is None:
        return [2**power for power in range(largest.bit_length())]
    return [size for size in wanted if size <= largest]


def different_batches(items: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Return batches [size, ...] that begin at different items [M, ...]; where these are few, they come repeatedly."""
    count = len(items)
    starts = [number * count // DIFFERENT for number in range(DIFFERENT)]
    return [items[(start + np.arange(size)) % count] for start in starts]


class _NvmlMemory(ctypes.Structure):
    """`nvmlMemory_t` of NVIDIA's management library."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def peak_resident_bytes() -> int | None:
    """Return the largest resident size of this process so far; None if Linux does not report it.

    Unlike `ru_maxrss`, it does not include the parent's peak.
    """
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def gpu_memory_used() -> int | None:
    """Return the bytes in use on CUDA's first GPU, by all processes; None without a GPU or a report of it.

    NVML may count GPUs in another order than CUDA.
    """
    try:
        cuda, nvml = ctypes.CDLL(CUDA_DRIVER), ctypes.CDLL(NVML)
    except OSError:
        return None
    device, address = ctypes.c_int(), ctypes.create_string_buffer(TEXT_BYTES)
    handle, memory = ctypes.c_void_p(), _NvmlMemory()
    done = (
        cuda.cuInit(0) == 0
        and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
        and cuda.cuDeviceGetPCIBusId(address, TEXT_BYTES, device) == 0
        and nvml.nvmlInit_v2() == 0
        and nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)) == 0
        and nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
    )
    return int(memory.used) if done else None


def answers(task: Task) -> Iterator[Answer]:
    """Do a task; whatever goes wrong is the last answer."""
    try:
        if isinstance(task, BackendTask):
            yield from measurements(task)
        else:
            setup, side = task.setup, SIDES[task.setup.device]
            rate = matmul_rate(
                device=setup.device, precision=task.precision, threads=setup.threads, seconds=setup.seconds, side=side
            )
            yield MatmulRate(device=setup.device, precision=task.precision, side=side, flop_per_second=rate)
    except Exception as error:  # libraries raise whatever they like
        line = next(iter(str(error).strip().splitlines()), "no reason given")
        if isinstance(error, DeepscanError):
            yield failure_of(task, line, error.exit_code)
        else:
            yield failure_of(task, f"{type(error).__name__}: {line}", MACHINE_AT_FAULT)


def answers_of(task: Task, *, worker: str = WORKER) -> Iterator[Answer]:
    """Do a task in a process of its own, which ends when the iterator is closed or interrupted.

    Yields:
        The answers as they arrive; if the process dies, the last one says why.
    """
    reading, writing = os.pipe()
    # -P: nothing is imported from the current folder.
    arguments = [str(os.getpid()), str(writing), msgspec.json.encode(task).decode()]
    command = [sys.executable, "-P", "-m", worker, *arguments]
    with open(reading, "rb") as answers, tempfile.TemporaryFile() as said:
        try:
            # A process group of its own: Ctrl-C reaches this process alone, which ends the other one.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[writing], process_group=0
            )
        finally:
            os.close(writing)
        try:
            for line in answers:
                if line == END:
                    break
                answer: Answer = msgspec.json.decode(line, type=Answer)
                yield answer
            else:
                yield failure_of(task, describe_exit(process.wait(), said), MACHINE_AT_FAULT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SHUTDOWN_TIMEOUT_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """Do the task that is the third argument, and write the answers to the file descriptor that is the second."""
    speak_as_command_line()
    parent, descriptor, task = int(sys.argv[1]), int(sys.argv[2]), msgspec.json.decode(sys.argv[3], type=Task)
    die_with_parent(parent)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        for answer in answers(task):
            out.write(msgspec.json.encode(answer) + END)
        out.write(END)


if __name__ == "__main__":
    main()
