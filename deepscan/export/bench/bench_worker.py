"""The process that measures one detector on one backend, so that memory and libraries' state do not mix.

    python -m deepscan.export.bench.bench_worker PARENT FD TASK

PARENT is the process that asks, TASK is JSON. Answers, one JSON object a line, go to the file descriptor FD, and at the
end an empty line; libraries write to stdout what they like.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from deepscan.errors import DeepscanError, UsageError
from deepscan.export.bench.bench_records import (
    END,
    MACHINE_AT_FAULT,
    Answer,
    BackendTask,
    Failure,
    MatmulRate,
    Measurement,
    RateTask,
    Task,
    failure_of,
)
from deepscan.export.bench.latency import Latency, measured_latency
from deepscan.export.bench.matmul_rate import SIDES, matmul_rate
from deepscan.export.bench.memory_use import gpu_memory_used, peak_resident_bytes
from deepscan.naming import speak_as_command_line
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.selection import Candidate, open_backend
from deepscan.runtime.system.processes import die_with_parent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.backends.contract import Backend

# So many batches are taken in turns: no run gets what the one before it got, if there are several items.
DIFFERENT: Final = 4


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
            latency = latency_of_batches(backend, different_batches(items, size), seconds=setup.seconds)
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


def latency_of_batches(backend: Backend, batches: Sequence[NDArray[np.uint8]], *, seconds: float) -> Latency:
    """Measure one size, taking the batches in turns."""
    return measured_latency(lambda run: backend.logits(batches[run % len(batches)]), seconds=seconds)


def batch_sizes(wanted: tuple[int, ...] | None, largest: int) -> list[int]:
    """Return the sizes that are measured, ascending, so that the peak of memory belongs to the largest so far.

    Args:
        wanted: ascending; None takes powers of two.
        largest: that the backend takes; larger ones are left out.
    """
    if wanted is None:
        return [2**power for power in range(largest.bit_length())]
    return [size for size in wanted if size <= largest]


def different_batches(items: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Return batches [size, ...] that begin at different items [M, ...]; where these are few, they come repeatedly."""
    count = len(items)
    starts = [number * count // DIFFERENT for number in range(DIFFERENT)]
    return [items[(start + np.arange(size)) % count] for start in starts]


def answers(task: Task) -> Iterator[Answer]:
    """Do a task; whatever goes wrong is the last answer."""
    try:
        if isinstance(task, BackendTask):
            yield from measurements(task)
        else:
            yield _rate(task)
    except Exception as error:  # libraries raise whatever they like
        yield _failure(task, error)


def _rate(task: RateTask) -> MatmulRate:
    setup, side = task.setup, SIDES[task.setup.device]
    rate = matmul_rate(
        device=setup.device, precision=task.precision, threads=setup.threads, seconds=setup.seconds, side=side
    )
    return MatmulRate(device=setup.device, precision=task.precision, side=side, flop_per_second=rate)


def _failure(task: Task, error: Exception) -> Failure:
    line = next(iter(str(error).strip().splitlines()), "no reason given")
    if isinstance(error, DeepscanError):
        return failure_of(task, line, error.exit_code)
    return failure_of(task, f"{type(error).__name__}: {line}", MACHINE_AT_FAULT)


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
