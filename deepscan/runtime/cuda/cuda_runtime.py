"""NVIDIA's libraries through `cuda-python`: imported when they are first needed, and with every call checked."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any, Final

from deepscan.errors import DeviceMemoryError, MachineError
from deepscan.installing import install_packages

# Kernels may be loaded as late as they first run, and then take memory, too.
OUT_OF_MEMORY: Final = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")


def cuda_is_installed() -> bool:
    """Tell whether cuda-python is installed, without loading its libraries."""
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None


@cache
def bindings(name: str) -> Any:
    """Import a module of cuda-python: `runtime`, `driver` or `nvrtc`.

    Raises:
        MachineError: cuda-python is not installed.
    """
    try:
        return importlib.import_module(f"cuda.bindings.{name}")
    except (ImportError, OSError) as error:
        raise MachineError(
            f"Using a GPU needs cuda-python, which cannot be loaded ({error}): run `{install_packages('cuda-python')}`."
        ) from error


def cuda_runtime() -> Any:
    """Return CUDA's runtime, see `bindings`."""
    return bindings("runtime")


def called(name: str, *arguments: Any) -> Any:
    """Call a function of CUDA's runtime, its driver or NVRTC, and return its result without the error code.

    Raises:
        DeviceMemoryError: the GPU has no memory left.
        MachineError: the call failed; the message names the function and the error.
    """
    module = "nvrtc" if name.startswith("nvrtc") else "runtime" if name.startswith("cuda") else "driver"
    error, *results = getattr(bindings(module), name)(*arguments)
    if int(error) == 0:
        return results[0] if results else None
    reason, remedy = error.name, "check the GPU with nvidia-smi"
    if module == "nvrtc":
        remedy = "reinstall nvidia-cuda-nvrtc"
    if module == "runtime":
        _, text = cuda_runtime().cudaGetErrorString(error)
        reason += f": {text.decode(errors='replace')}"
    if error.name in OUT_OF_MEMORY:
        raise DeviceMemoryError(
            f"{name} failed ({reason}): end what else uses the GPU, build engines with a smaller --max-batch, "
            "or use --device cpu."
        )
    raise MachineError(f"{name} failed ({reason}): {remedy}, or use --device cpu.")
