"""An NVIDIA GPU as a device of the pipeline: memory, queues on streams of their own, and the kernels."""

from __future__ import annotations

import ctypes
import math
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from deepscan.runtime.cuda.cuda_kernels import Kernels
from deepscan.runtime.cuda.cuda_runtime import called, cuda_runtime
from deepscan.runtime.cuda.device import DeviceArray, KernelName, Memory, Pool, array_in

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CudaDevice:
    """One GPU, for any number of threads; each queue is used by one at a time.

    Args:
        ordinal: CUDA's number of the GPU.

    Attributes:
        ordinal: CUDA's number of the GPU.
        name: NVIDIA's name of the GPU.

    Raises:
        MachineError: there is no such GPU, or a package is missing.
    """

    def __init__(self, ordinal: int = 0) -> None:
        self.ordinal = ordinal
        self._of_thread = threading.local()
        self.use()
        properties = called("cudaGetDeviceProperties", ordinal)
        self.name: str = properties.name.rstrip(bytes(1)).decode(errors="replace")
        self._held = ExitStack()
        self._capability = properties.major, properties.minor
        self._kernels: Kernels | None = None
        self._lock = threading.Lock()
        self.pool = Pool(lambda size: int(called("cudaMalloc", size)), lambda address: called("cudaFree", address))
        self._held.callback(self.pool.free_idle)
        # Page-locked, so that the GPU copies by itself.
        self.staging = Pool(
            lambda size: int(called("cudaMallocHost", size)), lambda address: called("cudaFreeHost", address)
        )
        self._held.callback(self.staging.free_idle)

    def use(self) -> None:
        """Make the context that all libraries share current in this thread, once."""
        if not hasattr(self._of_thread, "used"):
            called("cudaSetDevice", self.ordinal)
            self._of_thread.used = True

    def prepare(self) -> None:
        """Compile the kernels; copies alone need no compiler.

        Raises:
            MachineError: they cannot be compiled for this GPU.
        """
        self.kernels()

    def kernels(self) -> Kernels:
        """Return the kernels, compiled when they are first needed; see `prepare`."""
        with self._lock:
            if self._kernels is None:
                self._kernels = Kernels(self._capability)
                self._held.callback(self._kernels.close)
            return self._kernels

    def queue(self) -> CudaQueue:
        """Return a new queue.

        Raises:
            MachineError: the GPU fails.
        """
        self.use()
        queue = CudaQueue(self)
        self._held.callback(queue.close)
        return queue

    def close(self) -> None:
        """Release everything except the arrays still in use; its queues must not be used afterwards."""
        self.use()
        self._held.close()


class CudaQueue:
    """A stream of a GPU; see `Queue`.

    Args:
        device: the GPU, whose context is current in this thread.
    """

    def __init__(self, device: CudaDevice) -> None:
        runtime = cuda_runtime()
        self._device = device
        # One that does not wait for the default stream, where others in this process may work.
        self._stream = called("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        # Waiting for an event of this kind lets the processor do other things; waiting for a stream spins.
        sleeping = runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming
        self._event = called("cudaEventCreateWithFlags", sleeping)
        self._held: list[Memory] = []  # memory that unfinished work still reads

    @property
    def stream(self) -> Any:
        """CUDA's handle, for the calling thread, and for libraries whose work must run in its order.

        Most queues are made by another thread than uses them, and the context is current in one thread only.
        """
        self._device.use()
        return self._stream

    def empty(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> DeviceArray:
        """Return an array without gaps, whose numbers are whatever is there.

        Raises:
            DeviceMemoryError: the GPU has no memory left.
        """
        return array_in(self._device.pool.memory(math.prod(shape) * kind.itemsize), shape, kind)

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Begin to copy an array without gaps to the GPU, by way of page-locked memory."""
        source = np.ascontiguousarray(source)
        staging = self._device.staging.memory(source.nbytes)
        ctypes.memmove(staging.address, source.ctypes.data, source.nbytes)
        self._held.append(staging)
        kind = cuda_runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        called("cudaMemcpyAsync", address, staging.address, source.nbytes, kind, self.stream)

    def copy(self, address: int, row_bytes: int, source: DeviceArray) -> None:
        """Begin to copy rows [rows, columns] or [rows, columns, channels], see `Queue`."""
        columns = math.prod(source.shape[1:]) * source.kind.itemsize
        kind = cuda_runtime().cudaMemcpyKind.cudaMemcpyDeviceToDevice
        places = address, row_bytes, source.address, source.strides[0]
        called("cudaMemcpy2DAsync", *places, columns, source.shape[0], kind, self.stream)

    def download(self, source: DeviceArray) -> NDArray[Any]:
        """Wait for what was begun, and return the numbers of an array without gaps."""
        staging = self._device.staging.memory(source.nbytes)
        kind = cuda_runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        called("cudaMemcpyAsync", staging.address, source.address, source.nbytes, kind, self.stream)
        self.wait()
        numbers = np.empty(source.shape, source.kind)
        ctypes.memmove(numbers.ctypes.data, staging.address, source.nbytes)
        return numbers

    def run(self, kernel: KernelName, jobs: NDArray[Any]) -> None:
        """Begin to run a kernel over a table of jobs, each pixel of each job once."""
        table = self._device.pool.memory(jobs.nbytes)
        self._held.append(table)
        self.upload(table.address, jobs)
        self._device.kernels().begin(kernel, table.address, jobs, self.stream)

    def follow_default_stream(self) -> None:
        """Let later work of this queue begin after what was begun on the default stream, see `Queue`."""
        called("cudaEventRecord", self._event, 0)
        called("cudaStreamWaitEvent", self.stream, self._event, 0)

    def wait(self) -> None:
        """Wait until all begun work is done; other threads of this process run meanwhile."""
        called("cudaEventRecord", self._event, self.stream)
        called("cudaEventSynchronize", self._event)
        self._held.clear()

    def close(self) -> None:
        """Wait, and release the stream."""
        self.wait()
        called("cudaEventDestroy", self._event)
        called("cudaStreamDestroy", self.stream)
