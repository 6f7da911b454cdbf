"""The GPU that TensorRT would run on, as its driver describes it; takes no package of NVIDIA's."""

from __future__ import annotations

import ctypes
from typing import Final

from deepscan.runtime.backends.tensorrt.tensorrt_manifest import Target
from deepscan.runtime.system.machine import CUDA_DRIVER, nvidia_gpus

MANAGEMENT_LIBRARY: Final = "libnvidia-ml.so.1"
VERSION_BYTES: Final = 80  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
MAJOR, MINOR = 75, 76


def present_target() -> Target | None:
    """Describe the first NVIDIA GPU that this process may use; None without one."""
    gpus = nvidia_gpus()
    if not gpus:
        return None
    driver, device = ctypes.CDLL(CUDA_DRIVER), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), 0)
    digits = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        digits.append(str(value.value))
    return Target(compute_capability=".".join(digits), gpu=gpus[0].name, driver=driver_version())


def driver_version() -> str:
    """Return the version of NVIDIA's driver, such as 580.65.06; `unknown` where its library does not tell."""
    try:
        library = ctypes.CDLL(MANAGEMENT_LIBRARY)
    except OSError:
        return "unknown"
    text = ctypes.create_string_buffer(VERSION_BYTES)
    if library.nvmlInit_v2() != 0 or library.nvmlSystemGetDriverVersion(text, VERSION_BYTES) != 0:
        return "unknown"
    return text.value.decode(errors="replace")
