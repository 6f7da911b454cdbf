"""Memory that this process uses, and memory in use on the GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

from deepscan.runtime.system.machine import CUDA_DRIVER, NVML, TEXT_BYTES

STATUS: Final = Path("/proc/self/status")


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
