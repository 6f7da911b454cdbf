"""Plans of workers: how many processes serve a GPU, and what decodes in each of them.

Measured on one H200 with 16 CPU cores, 1080p H.264: NVDEC reaches its ceiling with some 16 decoders in several
processes, and the CPU with one decoder per core. Within one process the two get in each other's way. In separate
processes, 8 with two NVDEC decoders each beside 12 software decoders, they add up to 4,510 frames/s; alone they reach
2,530 and 2,290. Each process runs the whole pipeline, so that no frame crosses from one process to another.
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
# Tracking and starting kernels keep about one core busy in a process of NVDEC decoders.
CORES_PER_NVDEC_PROCESS: Final = 2
SOFTWARE_SHARE: Final = 0.75  # of the cores, beside NVDEC
MOST_SOFTWARE_DECODERS_EACH: Final = 6
# For a CUDA context, the kernels of the libraries, one detector and the frames in flight.
GPU_BYTES_PER_PROCESS: Final = 3 << 30


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Resources of one worker.

    Attributes:
        device: device that runs the detectors.
        gpu: number of the GPU; None on a CPU.
        nvdec: whether the GPU decodes the videos it can decode.
        decoders: number of videos decoded at once.
        threads: number of CPU threads for everything that runs on the CPU.
    """

    device: Device
    gpu: int | None
    nvdec: bool
    decoders: int
    threads: int


def cpu_worker(*, jobs: int | None, cores: int, most: int, inputs: int) -> WorkerPlan:
    """Return the plan of the one worker that scans on the CPU, for so many cores and videos to scan.

    It decodes `jobs` videos at once, the value of `--jobs`, or if that is None `most` of them.
    """
    decoders = min(jobs or min(cores, most), max(1, inputs))
    return WorkerPlan("cpu", None, nvdec=False, decoders=decoders, threads=cores)


def gpu_workers(
    gpus: Sequence[tuple[int, int]], *, cores: int, decoder: DecoderChoice, jobs: int | None, inputs: int
) -> list[WorkerPlan]:
    """Return the plans of the workers that serve some GPUs; the first ones of each GPU come first.

    Args:
        gpus: number and memory in bytes of each GPU, at least one.
        cores: number of CPU cores, at least 1.
        decoder: value of `--decoder`.
        jobs: value of `--jobs`, the number of videos that each worker decodes at once.
        inputs: number of videos to scan.
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
    """Tell which of the planned workers are needed for a number of NVDEC engines.

    One worker more than there are engines keeps them busy: on an H200, eight for seven.

    Args:
        engines: NVDEC engines of each GPU; None if that is unknown or NVDEC is not used.
        plans: plans in the order in which the workers start.
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
