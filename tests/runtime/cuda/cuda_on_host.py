"""A GPU for the real `CudaDevice`: cuda-python's functions convert the arguments, and the host's memory does the rest.

Without NVIDIA's driver each function of cuda-python takes its arguments apart, as it does with one, and then says that
there is no driver. So a wrong number, order or type of arguments fails here as on a GPU. Beyond that this is stricter
than a GPU: copies must stay inside memory that was taken, nothing is done before its stream is waited for, what is
given back is overwritten, handles that were destroyed are refused, and a thread must have chosen the device.
"""

from __future__ import annotations

import ctypes
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from deepscan.runtime.cuda.cuda_device import CudaDevice
from deepscan.runtime.cuda.cuda_kernels import MOST_JOBS, NAMES
from deepscan.runtime.cuda.cuda_runtime import bindings
from deepscan.runtime.system.machine import CUDA_DRIVER, has_library
from tests.runtime.cuda.host_device import PATTERN, kernels_on_cpu

without_driver = pytest.mark.skipif(has_library(CUDA_DRIVER), reason="the real functions would reach the driver")
NO_DRIVER: Final = 35
MEMORY_BYTES: Final = 1 << 40
MOST_THREADS: Final = 1024
CAPABILITY: Final = (8, 6)


class CudaOnHost:
    """Stands in for the functions of cuda-python that deepscan calls; see the module."""

    def __init__(self) -> None:
        self.runtime, self.driver = bindings("runtime"), bindings("driver")
        self._patch = pytest.MonkeyPatch()
        self._of_thread = threading.local()
        self._handles = 1 << 20
        self.memory: dict[str, dict[int, Any]] = {"device": {}, "host": {}}  # by address
        self.default_stream: list[Callable[[], object]] = []
        self._streams: dict[int, list[Callable[[], object]]] = {0: self.default_stream}
        self._events: dict[int, tuple[int, int] | None] = {}  # the stream and how much of its work is waited for
        self._libraries: dict[int, dict[int, str]] = {}
        for module, kind in ((self.runtime, "cuda"), (self.driver, "cu")):
            for name in dir(type(self)):
                if name.startswith(kind) and (kind == "cuda" or not name.startswith("cuda")):
                    self._patch.setattr(module, name, partial(self._call, getattr(module, name), getattr(self, name)))

    def undo(self) -> None:
        """Give cuda-python its functions back."""
        self._patch.undo()

    def _call(self, real: Any, effect: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        inspect.signature(real).bind(*arguments)
        assert not any(isinstance(argument, float) for argument in arguments), "it would be cut to an integer"
        runtime = real.__name__.startswith("cuda")
        if runtime:
            error, *_ = real(*arguments)
            assert int(error) == NO_DRIVER
        else:  # the driver's functions say it in another way, after they took the arguments
            with pytest.raises(RuntimeError, match="driver"):
                real(*arguments)
        success = self.runtime.cudaError_t.cudaSuccess if runtime else self.driver.CUresult.CUDA_SUCCESS
        try:
            result = effect(*arguments)
        except MemoryError:
            return self.runtime.cudaError_t.cudaErrorMemoryAllocation, None
        except LookupError:
            return (self.runtime.cudaError_t.cudaErrorInvalidValue,)
        return (success,) if result is None else (success, result)

    def _new_handle(self) -> int:
        self._handles += 16
        return self._handles

    def _begin(self, stream: Any, work: Callable[[], object]) -> None:
        assert self._of_thread.device == 0, "this thread has chosen no device"
        self._streams[int(stream)].append(work)

    def _check_inside(self, kind: str, address: int, size: int) -> None:
        places = self.memory[kind].items()
        assert any(start <= address and address + size <= start + len(held) for start, held in places), "outside"

    def _take(self, kind: str, size: int) -> int:
        if size > MEMORY_BYTES:
            raise MemoryError
        held = (ctypes.c_ubyte * size)()
        ctypes.memset(held, PATTERN, size)
        self.memory[kind][ctypes.addressof(held)] = held
        return ctypes.addressof(held)

    def _free(self, kind: str, address: int) -> None:
        held = self.memory[kind].pop(address)
        ctypes.memset(held, PATTERN, len(held))

    def cudaSetDevice(self, device: int) -> None:  # noqa: N802
        if device:
            raise LookupError
        self._of_thread.device = device

    def cudaGetDeviceProperties(self, device: int) -> Any:  # noqa: N802
        assert device == 0
        properties = self.runtime.cudaDeviceProp()
        properties.name, (properties.major, properties.minor) = b"Host".ljust(256, b"\0"), CAPABILITY
        return properties

    def cudaMalloc(self, size: int) -> int:  # noqa: N802
        return self._take("device", size)

    def cudaMallocHost(self, size: int) -> int:  # noqa: N802
        return self._take("host", size)

    def cudaFree(self, address: int) -> None:  # noqa: N802
        self._free("device", address)

    def cudaFreeHost(self, address: int) -> None:  # noqa: N802
        self._free("host", address)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        assert flags == self.runtime.cudaStreamNonBlocking, "it would wait for the default stream"
        handle = self._new_handle()
        self._streams[handle] = []
        return self.runtime.cudaStream_t(handle)

    def cudaStreamDestroy(self, stream: Any) -> None:  # noqa: N802
        assert not self._streams.pop(int(stream)), "work was begun and not waited for"

    def cudaEventCreateWithFlags(self, flags: int) -> Any:  # noqa: N802
        assert flags == self.runtime.cudaEventBlockingSync | self.runtime.cudaEventDisableTiming
        handle = self._new_handle()
        self._events[handle] = None
        return self.runtime.cudaEvent_t(handle)

    def cudaEventRecord(self, event: Any, stream: Any) -> None:  # noqa: N802
        assert int(event) in self._events
        self._events[int(event)] = int(stream), len(self._streams[int(stream)])

    def cudaEventSynchronize(self, event: Any) -> None:  # noqa: N802
        recorded = self._events[int(event)]
        assert recorded is not None, "nothing was recorded"
        stream, count = recorded
        begun = self._streams[stream]
        for work in begun[:count]:
            work()
        del begun[:count]
        self._events[int(event)] = stream, 0

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:  # noqa: N802
        assert flags == 0
        recorded = self._events[int(event)]
        assert recorded is not None, "nothing was recorded"
        before, count = recorded
        works = self._streams[before][:count]
        del self._streams[before][:count]
        for work in works:
            self._begin(stream, work)

    def cudaEventDestroy(self, event: Any) -> None:  # noqa: N802
        del self._events[int(event)]

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: Any, stream: Any) -> None:  # noqa: N802
        self.cudaMemcpy2DAsync(target, count, source, count, count, 1, kind, stream)

    def cudaMemcpy2DAsync(  # noqa: N802
        self, target: int, row: int, source: int, source_row: int, width: int, height: int, kind: Any, stream: Any
    ) -> None:
        assert width <= min(row, source_row)
        kinds = self.runtime.cudaMemcpyKind
        there, here = {
            kinds.cudaMemcpyHostToDevice: ("device", "host"),
            kinds.cudaMemcpyDeviceToHost: ("host", "device"),
            kinds.cudaMemcpyDeviceToDevice: ("device", "device"),
        }[kind]
        self._check_inside(there, target, row * (height - 1) + width)
        self._check_inside(here, source, source_row * (height - 1) + width)
        for number in range(height):
            self._begin(stream, partial(ctypes.memmove, target + number * row, source + number * source_row, width))

    def cuLibraryLoadData(self, code: bytes, *_: Any) -> Any:  # noqa: N802
        handle = self._new_handle()
        # The names of its kernels are in a cubin as they are.
        self._libraries[handle] = {self._new_handle(): name for name in NAMES if name.encode() in code}
        return self.driver.CUlibrary(handle)

    def cuLibraryGetKernel(self, library: Any, name: bytes) -> Any:  # noqa: N802
        handles = {each: handle for handle, each in self._libraries[int(library)].items()}
        return self.driver.CUkernel(handles[name.decode()])

    def cuLibraryUnload(self, library: Any) -> None:  # noqa: N802
        del self._libraries[int(library)]

    def cuLaunchKernel(  # noqa: N802
        self,
        function: Any,
        across: int,
        down: int,
        jobs: int,
        width: int,
        height: int,
        depth: int,
        shared_bytes: int,
        stream: int,
        arguments: Any,
        extra: int,
    ) -> None:
        (address,), (kind,) = arguments
        assert (kind, shared_bytes, extra, depth) == (ctypes.c_void_p, 0, 0, 1)
        assert width * height <= MOST_THREADS
        assert across > 0
        assert 0 < down <= MOST_JOBS
        assert 0 < jobs <= MOST_JOBS
        (name,) = [names[int(function)] for names in self._libraries.values() if int(function) in names]
        self._check_inside("device", address, jobs)

        def run() -> None:
            sizes = (ctypes.c_int * 2).from_address(address)  # all tables begin with width and height
            assert sizes[0] <= across * width
            assert sizes[1] <= down * height
            getattr(kernels_on_cpu(), f"run_{name}")(ctypes.c_void_p(address), jobs)

        self._begin(stream, run)


class CudaDeviceOnHost(CudaDevice):
    """The real device on `CudaOnHost`; closing it checks that everything was given back.

    Attributes:
        fake: what stands in for cuda-python's functions.
    """

    def __init__(self) -> None:
        self.fake = CudaOnHost()
        try:
            super().__init__(0)
        except BaseException:
            self.fake.undo()
            raise

    def close(self) -> None:
        """Close the device."""
        try:
            super().close()
            fake = self.fake
            assert (fake._streams, fake._events, fake._libraries) == ({0: []}, {}, {})
        finally:
            self.fake.undo()
