"""Processor time, wall time and memory of a piece of work, and the machine it ran on."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deepscan.installing import installed_version
from deepscan.runtime.system.machine import cpu_count

PACKAGES = ("av", "onnxruntime", "numpy", "opencv-python-headless", "pillow")


@dataclass(frozen=True)
class Cost:
    """Cost of a piece of work: user and system time of all threads of this process, and time by the clock."""

    cpu_seconds: float
    wall_seconds: float


def cost_of(work: Callable[[], object]) -> Cost:
    """Do the work once."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return Cost(_cpu_seconds() - cpu, time.perf_counter() - wall)


def machine() -> str:
    """Describe the machine and the versions, on one line."""
    versions = ", ".join(f"{name} {installed_version(name)}" for name in PACKAGES)
    return f"{_processor()}, {cpu_count()} processors; Python {platform.python_version()}, {versions}"


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
