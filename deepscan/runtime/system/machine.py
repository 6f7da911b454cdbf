"""What this machine is and can do: processors, GPUs, the libraries that decode and infer."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from deepscan.installing import installed_version
from deepscan.runtime.system.files import data_folder
from deepscan.version import __version__
from deepscan.wording import counted

Device: TypeAlias = Literal["cpu", "cuda"]
DeviceChoice: TypeAlias = Literal["auto", "cpu", "cuda"]
CUDA_DRIVER: Final = "libcuda.so.1"
NVDEC_LIBRARY: Final = "libnvcuvid.so.1"
NVML: Final = "libnvidia-ml.so.1"
TEXT_BYTES: Final = 256
PROCESSORS: Final = Path("/proc/cpuinfo")
PACKAGES: Final = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "tensorrt",
    "tensorrt-rtx",
)


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
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(TEXT_BYTES), ctypes.c_size_t()
        driver.cuDeviceGet(ctypes.byref(device), ordinal)
        driver.cuDeviceGetName(name, TEXT_BYTES, device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        gpus.append(Gpu(name.value.decode(errors="replace"), memory.value))
    return gpus


def mps_runs() -> bool:
    """Tell whether CUDA's Multi-Process Service runs: its daemon listens where CUDA looks for it."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(f"{folder}/control")
        except OSError as error:
            return error.errno == errno.EPROTOTYPE  # it listens for another kind of connection
    return True


def has_library(name: str) -> bool:
    """Tell whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def gpu_driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None where there is none."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return None
    text = ctypes.create_string_buffer(TEXT_BYTES)
    if nvml.nvmlInit_v2() != 0 or nvml.nvmlSystemGetDriverVersion(text, TEXT_BYTES) != 0:
        return None
    return text.value.decode(errors="replace")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure depends on besides the detector.

    Attributes:
        processor: name of the CPU.
        processors: how many this process may use.
        gpus: names of the GPUs.
        gpu_driver: version of NVIDIA's driver; None where there is none.
        system: name and version of the operating system.
        packages: name and version of what takes part, Python included.
    """

    processor: str
    processors: int
    gpus: tuple[str, ...]
    gpu_driver: str | None
    system: str
    packages: dict[str, str]

    def __str__(self) -> str:
        gpus = f"; {', '.join(self.gpus)}, driver {self.gpu_driver or 'unknown'}" if self.gpus else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return f"{self.processor}, {counted(self.processors, 'processor')}{gpus}; {self.system}; {versions}"


def environment() -> Environment:
    """Describe this machine."""
    found = {name: installed_version(name) for name in PACKAGES}
    return Environment(
        processor=_processor_fact("model name") or platform.processor() or platform.machine(),
        processors=cpu_count(),
        gpus=tuple(gpu.name for gpu in nvidia_gpus()),
        gpu_driver=gpu_driver_version(),
        system=f"{platform.system()} {platform.release()}",
        packages={
            "python": platform.python_version(),
            "deepscan": __version__,
            **{name: number for name, number in found.items() if number},
        },
    )


def processor_flags() -> frozenset[str]:
    """Return what Linux calls the instruction sets of the processor, such as `avx512_bf16`; empty elsewhere."""
    return frozenset(_processor_fact("flags").split())


def _processor_fact(name: str) -> str:
    """Return a line of what Linux says of the first processor; empty where it does not say it."""
    try:
        lines = PROCESSORS.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
