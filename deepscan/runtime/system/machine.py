"""What this machine can do: processors, GPUs, the libraries that decode and infer."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from deepscan.errors import MachineError
from deepscan.runtime.artifacts.weights_store import data_folder
from deepscan.runtime.backends.sessions import PROVIDERS, Device, available_providers

DeviceChoice = Literal["auto", "cpu", "cuda"]
CUDA_DRIVER = "libcuda.so.1"
NVDEC_LIBRARY = "libnvcuvid.so.1"
NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver reports it."""

    name: str
    memory_bytes: int


def cpu_count() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def nvidia_gpus() -> list[Gpu]:
    """Ask the CUDA driver, if there is one, for its GPUs."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return []
    # What the driver compiles it keeps, by default in ~/.nv.
    os.environ.setdefault("CUDA_CACHE_PATH", str(data_folder() / "cuda"))
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    gpus = []
    for ordinal in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES), ctypes.c_size_t()
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(name, NAME_BYTES, device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        gpus.append(Gpu(name.value.decode(errors="replace"), memory.value))
    return gpus


def has_library(name: str) -> bool:
    """Tell whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def resolve_device(choice: DeviceChoice) -> Device:
    """Turn a choice into a device: `auto` is CUDA where both a GPU and ONNX Runtime's provider for it are there.

    Raises:
        MachineError: CUDA was asked for and cannot be had.
    """
    if choice == "cpu":
        return "cpu"
    built = PROVIDERS["cuda"] in available_providers()
    if built and nvidia_gpus():
        return "cuda"
    if choice == "auto":
        return "cpu"
    lacking = "no NVIDIA GPU is visible to the CUDA driver" if built else "this ONNX Runtime was built without CUDA"
    raise MachineError(f"--device cuda cannot be used ({lacking}): run `deepscan doctor`, or use --device cpu.")
