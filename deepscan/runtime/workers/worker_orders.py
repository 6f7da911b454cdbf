"""What all workers of a scan are told to do, and starting one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from deepscan.runtime.backends.devices import visible_gpu
from deepscan.runtime.system.processes import usual_memory
from deepscan.runtime.workers.protocol import Setup
from deepscan.runtime.workers.transport import WorkerProcess

if TYPE_CHECKING:
    from deepscan.options import ScanOptions
    from deepscan.runtime.pipeline.trace_parts import Trace
    from deepscan.runtime.system.machine import Device
    from deepscan.runtime.workers.plan import WorkerPlan
    from deepscan.runtime.workers.protocol import FromWorker

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What all workers of a scan share; see `deepscan.scan`.

    Attributes:
        options: of the scan.
        device: what backend and precision are meant for.
    """

    options: ScanOptions
    device: Device


def started_worker(
    order: WorkerOrder,
    trace: Trace | None,
    plan: WorkerPlan,
    name: str,
    hear: Callable[[FromWorker | None], None],
) -> WorkerProcess:
    """Start a worker's process and tell it what to do.

    A GPU's worker sees that GPU alone, as its first one. One that stands in for it on the CPU takes any backend, as
    what was asked for was meant for the GPU.

    Args:
        order: of the scan.
        trace: of the scan.
        plan: of the worker.
        name: of the worker, for people.
        hear: gets its messages, see `WorkerProcess`.
    """
    options = order.options
    if plan.device != order.device:
        options = replace(options, backend="auto", precision="auto")
    if not plan.nvdec:
        options = replace(options, decoder="cpu")
    environment = {}
    if plan.gpu is not None:
        environment = {GPU_VARIABLE: visible_gpu(plan.gpu, os.environ.get(GPU_VARIABLE))}
    process = WorkerProcess(hear, environment=environment)
    process.tell(
        Setup(
            options=options.to_json(),
            device=plan.device,
            decoders=plan.decoders,
            threads=plan.threads,
            trace=os.fsencode(trace.part()) if trace is not None else None,
            name=name,
            memory_bytes=(options.memory or usual_memory()) if plan.device == "cpu" else None,
        )
    )
    return process
