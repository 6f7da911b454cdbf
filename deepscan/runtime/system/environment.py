"""On what something was measured."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

import msgspec

from deepscan import __version__
from deepscan.export.bench.memory_use import gpu_driver_version
from deepscan.runtime.system.machine import cpu_count, installed_version, nvidia_gpus
from deepscan.wording import counted

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
        processor=_processor(),
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


def _processor() -> str:
    """Return the name that Linux gives on most processors, else what Python knows."""
    try:
        lines = PROCESSORS.read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
