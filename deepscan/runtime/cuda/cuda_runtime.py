"""CUDA's runtime through `cuda-python`, with every call checked and every resource released."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from deepscan.errors import DeviceMemoryError, MachineError
from deepscan.installing import install_packages

BINDINGS: Final = "cuda.bindings.runtime"


def cuda_is_installed() -> bool:
    """Tell whether cuda-python is installed, without loading its libraries."""
    return importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None


@cache
def cuda_runtime() -> Any:
    """Load CUDA's runtime.

    Raises:
        MachineError: cuda-python is not installed.
    """
    try:
        return importlib.import_module(BINDINGS)
    except (ImportError, OSError) as error:
        raise MachineError(
            f"Using a GPU needs cuda-python, which cannot be loaded ({error}): run `{install_packages('cuda-python')}`."
        ) from error


def called(name: str, *arguments: Any) -> Any:
    """Call a function of CUDA's runtime and return its result, without the error code.

    Raises:
        DeviceMemoryError: the GPU has no memory left.
        MachineError: the call failed; the message names the function and the error.
    """
    runtime = cuda_runtime()
    error, *results = getattr(runtime, name)(*arguments)
    if error != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(error)
        reason = f"{error.name}: {text.decode(errors='replace')}"
        if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
            raise DeviceMemoryError(
                f"{name} failed ({reason}): end what else uses the GPU, build engines with a smaller --max-batch, "
                "or use --device cpu."
            )
        raise MachineError(f"{name} failed ({reason}): check the GPU with nvidia-smi, or use --device cpu.")
    return results[0] if results else None


class Stream:
    """A CUDA stream, with the memory that is used on it.

    Raises:
        MachineError: CUDA cannot be used, or has no memory left.
    """

    def __init__(self) -> None:
        self._held = ExitStack()
        # Non-blocking: it does not wait for other work of this process.
        self.handle = called("cudaStreamCreateWithFlags", cuda_runtime().cudaStreamNonBlocking)
        self._held.callback(called, "cudaStreamDestroy", self.handle)

    def device_memory(self, size_bytes: int) -> int:
        """Allocate memory on the GPU, and return its address."""
        address = int(called("cudaMalloc", max(size_bytes, 1)))
        self._held.callback(called, "cudaFree", address)
        return address

    def host_memory(self, shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
        """Allocate page-locked memory on the host, for asynchronous copies, as an array of zeros."""
        size_bytes = int(np.prod(shape)) * np.dtype(kind).itemsize
        address = int(called("cudaMallocHost", size_bytes))
        self._held.callback(called, "cudaFreeHost", address)
        memory = (ctypes.c_uint8 * size_bytes).from_address(address)
        array: NDArray[Any] = np.ctypeslib.as_array(memory).view(kind).reshape(shape)
        array[...] = 0
        return array

    def to_host(self, target: NDArray[Any], address: int) -> None:
        """Begin to copy from the GPU to page-locked memory."""
        kind = cuda_runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        called("cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, self.handle)

    def wait(self) -> None:
        """Wait until all begun work is done."""
        called("cudaStreamSynchronize", self.handle)

    def captured(self, work: Callable[[], None]) -> Any:
        """Record what `work` begins on this stream as a graph, without running it.

        Other threads may use CUDA meanwhile.
        """
        runtime = cuda_runtime()
        called("cudaStreamBeginCapture", self.handle, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except BaseException:
            runtime.cudaStreamEndCapture(self.handle)  # fails too, and says less
            raise
        recorded = called("cudaStreamEndCapture", self.handle)
        try:
            graph = called("cudaGraphInstantiate", recorded, 0)
        finally:
            called("cudaGraphDestroy", recorded)
        self._held.callback(called, "cudaGraphExecDestroy", graph)
        return graph

    def launch(self, graph: Any) -> None:
        """Begin to run a graph."""
        called("cudaGraphLaunch", graph, self.handle)

    def on_close(self, give_back: Callable[[], object]) -> None:
        """Register a callback of `close`, called before those registered earlier."""
        self._held.callback(give_back)

    def close(self) -> None:
        """Release everything, the latest first."""
        self._held.close()
