"""The kernels of `kernels.cu` on an NVIDIA GPU: compiled where they run, loaded, and launched.

NVRTC, NVIDIA's compiler as a library, needs neither a GPU nor a CUDA toolkit, and takes a fraction of a second.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, get_args

from deepscan.errors import MachineError
from deepscan.installing import install_packages
from deepscan.runtime.cuda.cuda_runtime import bindings, called
from deepscan.runtime.cuda.device import KernelName

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE: Final = "kernels.cu"
NAMES: Final[tuple[KernelName, ...]] = get_args(KernelName)
# Threads that share a processor; neighbors in a row read neighboring memory.
BLOCK_WIDTH, BLOCK_HEIGHT = 32, 8
# CUDA's limit of blocks along z, which count jobs.
MOST_JOBS: Final = 65_535
# Results must not depend on whether the compiler joins a product and a sum, as then one of them is not rounded.
OPTIONS: Final = ("--std=c++17", "--fmad=false")


@cache
def cubin(capability: tuple[int, int]) -> tuple[bytes, str]:
    """Compile the kernels.

    Args:
        capability: compute capability of the GPU, such as (8, 6).

    Returns:
        Machine code for such GPUs, and the remarks of the compiler.

    Raises:
        MachineError: NVRTC is not installed, or too old for that GPU.
    """
    nvrtc = bindings("nvrtc")
    source = files(__package__).joinpath(SOURCE).read_bytes()
    try:
        program = called("nvrtcCreateProgram", source, SOURCE.encode(), 0, [], [])
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"Using a GPU needs NVRTC, which cannot be loaded ({error}): "
            f"run `{install_packages('nvidia-cuda-nvrtc')}`, or use --device cpu."
        ) from error
    try:
        architecture = "--gpu-architecture=sm_{}{}".format(*capability)
        options = [option.encode() for option in (architecture, *OPTIONS)]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        log = bytearray(called("nvrtcGetProgramLogSize", program))
        called("nvrtcGetProgramLog", program, log)
        remarks = log.rstrip(bytes(1)).decode(errors="replace").strip()
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise MachineError(
                f"NVRTC cannot compile {SOURCE} for compute capability {capability[0]}.{capability[1]} "
                f"({remarks or result.name}): "
                f"run `{install_packages('--upgrade', 'nvidia-cuda-nvrtc')}`, or use --device cpu."
            )
        code = bytearray(called("nvrtcGetCUBINSize", program))
        called("nvrtcGetCUBIN", program, code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return bytes(code), remarks


class Kernels:
    """The kernels, ready to run on GPUs of one kind.

    Args:
        capability: of the GPUs.

    Raises:
        DeviceMemoryError: the GPU has no memory left.
        MachineError: they cannot be compiled or loaded.
    """

    def __init__(self, capability: tuple[int, int]) -> None:
        driver = bindings("driver")
        self._code, _ = cubin(capability)  # kept, as the driver may read it as late as a kernel's first run
        self._library = called("cuLibraryLoadData", self._code, [], [], 0, [], [], 0)
        # A kernel of a library stands in for a function, whatever the context.
        self._functions = {
            name: driver.CUfunction(int(called("cuLibraryGetKernel", self._library, name.encode()))) for name in NAMES
        }

    def begin(self, name: KernelName, table: int, jobs: NDArray[Any], stream: Any) -> None:
        """Begin to run a kernel in the calling thread's context, each pixel of each job once.

        Args:
            name: name of the kernel.
            table: address of the jobs on the GPU.
            jobs: the same jobs, in a table of `kernel_jobs`.
            stream: stream on which it runs.
        """
        width, height = int(jobs["width"].max(initial=0)), int(jobs["height"].max(initial=0))
        blocks, block = (-(-width // BLOCK_WIDTH), -(-height // BLOCK_HEIGHT)), (BLOCK_WIDTH, BLOCK_HEIGHT, 1)
        for first in range(0, len(jobs) if width and height else 0, MOST_JOBS):
            arguments = ((table + first * jobs.itemsize,), (ctypes.c_void_p,))
            count = min(MOST_JOBS, len(jobs) - first)
            called("cuLaunchKernel", self._functions[name], *blocks, count, *block, 0, int(stream), arguments, 0)

    def close(self) -> None:
        """Give the library back; nothing may run any more."""
        called("cuLibraryUnload", self._library)
