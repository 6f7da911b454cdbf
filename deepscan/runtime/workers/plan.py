"""How many processes serve a GPU, and what decodes in each.

Measured on a machine with one H200 and 16 CPU cores, 1080p H.264: NVDEC reaches its ceiling with some 16 decoders in
threads of several processes, and the CPU cores their own with one decoder each. In one process the two get in each
other's way; in separate processes, 8 with two NVDEC decoders each beside 12 software decoders, they add up: 4,510
frames/s, after 2,530 and 2,290 alone. Each process runs the whole pipeline, so no frame has to cross from one to the
other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from deepscan.runtime.system.machine import Device

if TYPE_CHECKING:
    from deepscan.options import DecoderChoice

MOST_NVDEC_PROCESSES: Final = 8
NVDEC_DECODERS_EACH: Final = 2
# A process of NVDEC decoders keeps about one core busy with tracking and with starting kernels.
CORES_PER_NVDEC_PROCESS: Final = 2
SOFTWARE_SHARE: Final = 0.75  # of the cores, beside NVDEC
MOST_SOFTWARE_DECODERS_EACH: Final = 6
# A context of CUDA, the libraries' kernels, one detector and the frames in flight.
GPU_BYTES_PER_PROCESS: Final = 3 << 30


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One process.

    Attributes:
        device: where it infers.
        gpu: number of its GPU; None on a CPU.
        nvdec: whether its frames are decoded on the GPU, where the GPU can.
        decoders: videos decoded at once.
        threads: of the processor, for all that it does there.
    """

    device: Device
    gpu: int | None
    nvdec: bool
    decoders: int
    threads: int


def cpu_worker(*, jobs: int | None, cores: int, most: int, inputs: int) -> WorkerPlan:
    """Return the one process that scans on the CPU.

    Args:
        jobs: videos decoded at once, if that was asked for.
        cores: of the processor, at least 1.
        most: videos decoded at once where nothing was asked for.
        inputs: how many videos there are.
    """
    decoders = min(jobs or min(cores, most), max(1, inputs))
    return WorkerPlan("cpu", None, nvdec=False, decoders=decoders, threads=cores)


def gpu_workers(
    gpus: Sequence[tuple[int, int]], *, cores: int, decoder: DecoderChoice, jobs: int | None, inputs: int
) -> list[WorkerPlan]:
    """Return the processes that serve some GPUs; the first ones of each GPU come first.

    Args:
        gpus: number and memory in bytes of each, at least one.
        cores: of the processor, at least 1.
        decoder: what decodes.
        jobs: videos decoded at once by each process, if that was asked for.
        inputs: how many videos there are.
    """
    share = max(1, cores // len(gpus))
    each = [_for_one(number, memory_bytes, share, decoder, jobs) for number, memory_bytes in gpus]
    in_turns = [plan for turn in range(max(map(len, each))) for plans in each for plan in plans[turn : turn + 1]]
    needed, decoders = 0, 0
    while needed < len(in_turns) and decoders < inputs:
        decoders += in_turns[needed].decoders
        needed += 1
    return in_turns[: max(1, needed)]


def needed_for(engines: int | None, plans: Sequence[WorkerPlan]) -> list[bool]:
    """Tell which of the planned processes to start, when the first one has seen how many engines NVDEC has.

    Seven engines were kept busy by eight processes: one more than there are.

    Args:
        engines: of each GPU; None where that is not known, or nobody decodes on one.
        plans: in the order in which they start.
    """
    started: dict[int | None, int] = {}
    needed = []
    for plan in plans:
        if plan.nvdec:
            started[plan.gpu] = started.get(plan.gpu, 0) + 1
        needed.append(not plan.nvdec or engines is None or started[plan.gpu] <= engines + 1)
    return needed


def _for_one(gpu: int, memory_bytes: int, cores: int, decoder: DecoderChoice, jobs: int | None) -> list[WorkerPlan]:
    most = max(1, memory_bytes // GPU_BYTES_PER_PROCESS)
    hard = 0 if decoder == "cpu" else min(MOST_NVDEC_PROCESSES, max(1, cores // CORES_PER_NVDEC_PROCESS))
    decoders = 0 if decoder == "nvdec" else max(1, round(cores * (SOFTWARE_SHARE if hard else 1.0)))
    soft = math.ceil(decoders / MOST_SOFTWARE_DECODERS_EACH)
    if hard + soft > most:  # a small GPU has room for few: both kinds if there are two
        soft = min(soft, max(1, most // 2) if hard and most > 1 else most * (not hard))
        hard = min(hard, most - soft)
    nvdec = [
        WorkerPlan("cuda", gpu, nvdec=True, decoders=jobs or NVDEC_DECODERS_EACH, threads=CORES_PER_NVDEC_PROCESS)
    ] * hard
    sizes = [decoders // soft + (number < decoders % soft) for number in range(soft)]
    software = [WorkerPlan("cuda", gpu, nvdec=False, decoders=jobs or size, threads=size) for size in sizes]
    both = max(len(nvdec), len(software))
    return [plan for turn in range(both) for plans in (nvdec, software) for plan in plans[turn : turn + 1]]
