"""What all workers of a scan are told to do, and starting one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepscan.runtime.backends.devices import visible_gpu
from deepscan.runtime.system.processes import usual_memory
from deepscan.runtime.workers.protocol import Setup
from deepscan.runtime.workers.transport import WorkerProcess

if TYPE_CHECKING:
    from deepscan.runtime.backends.backend_choice import BackendChoice, PrecisionChoice
    from deepscan.runtime.media.decoder_choice import DecoderName
    from deepscan.runtime.pipeline.settings import Wishes
    from deepscan.runtime.pipeline.trace_parts import Trace
    from deepscan.runtime.system.machine import Device
    from deepscan.runtime.workers.plan import WorkerPlan
    from deepscan.runtime.workers.protocol import FromWorker

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What all workers of a scan share; see `deepscan.scan`.

    Attributes:
        device: what backend and precision are meant for.
        memory_bytes: what a process on a CPU may take; None for nine tenths of what is there.
    """

    models: list[str]
    wishes: Wishes
    device: Device
    backend: BackendChoice
    precision: PrecisionChoice
    decoder: DecoderName
    memory_bytes: int | None = None


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
    as_asked = plan.device == order.device
    environment = {}
    if plan.gpu is not None:
        environment = {GPU_VARIABLE: visible_gpu(plan.gpu, os.environ.get(GPU_VARIABLE))}
    process = WorkerProcess(hear, environment=environment)
    process.tell(
        Setup(
            models=[os.fsencode(model) for model in order.models],
            wishes=order.wishes,
            device=plan.device,
            decoder=order.decoder if plan.nvdec else "cpu",
            decoders=plan.decoders,
            threads=plan.threads,
            backend=order.backend if as_asked else "auto",
            precision=order.precision if as_asked else "auto",
            trace=os.fsencode(trace.part()) if trace is not None else None,
            name=name,
            memory_bytes=(order.memory_bytes or usual_memory()) if plan.device == "cpu" else None,
        )
    )
    return process
