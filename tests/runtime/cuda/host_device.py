"""A device whose memory is the host's and whose kernels are the GPU's own, compiled for the CPU.

Stricter than a GPU where that finds mistakes: nothing is done before it is waited for, and memory that is given
back is overwritten at once.
"""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import deepscan.runtime.cuda
from deepscan.errors import DeviceMemoryError
from deepscan.runtime.cuda.device import DeviceArray, KernelName, Pool, array_in, packed_strides
from tests.shared import made_once

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATTERN: Final = 0xA5
C_SOURCE: Final = Path(__file__).with_name("kernels_on_cpu.c")
# As on the GPU no product is joined with a sum.
OPTIONS: Final = ("-std=c11", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


@cache
def kernels_on_cpu() -> ctypes.CDLL:
    """Load the kernels, which the C compiler of the package `ziglang` compiles once for all tests of a run."""
    return ctypes.CDLL(str(made_once("kernels.so", compile_kernels)))


def compile_kernels(library: Path) -> None:
    with TemporaryDirectory() as folder:
        sources = ["-I", *deepscan.runtime.cuda.__path__, str(C_SOURCE), "-lm", "-o", str(library)]
        own_cache = {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *OPTIONS, *sources], check=True, env=os.environ | own_cache
        )


class OverwrittenPool(Pool):
    """Overwrites what is given back."""

    def give_back(self, address: int, size: int) -> None:
        """Have memory used again."""
        ctypes.memset(address, PATTERN, size)
        super().give_back(address, size)


class HostDevice:
    """A device of host memory.

    Args:
        memory_bytes: what it has; more is refused.

    Attributes:
        name: what it is.
        pool: its memory.
        taken_bytes: memory that was taken from the host and not freed.
    """

    def __init__(self, memory_bytes: int = 1 << 32) -> None:
        self.name = "host memory"
        self.taken_bytes = 0
        self._memory_bytes = memory_bytes
        self._arrays: dict[int, NDArray[np.uint8]] = {}
        self.pool: Pool = OverwrittenPool(self._take, self._free)

    def _take(self, size: int) -> int:
        if self.taken_bytes + size > self._memory_bytes:
            raise DeviceMemoryError(f"{self.taken_bytes} of {self._memory_bytes} bytes are taken.")
        array = np.full(size, PATTERN, np.uint8)
        self._arrays[array.ctypes.data] = array
        self.taken_bytes += size
        return array.ctypes.data

    def _free(self, address: int) -> None:
        self.taken_bytes -= self._arrays.pop(address).nbytes

    def queue(self) -> HostQueue:
        """Return a new queue, for the calling thread."""
        return HostQueue(self)

    def prepare(self) -> None:
        """Compile the kernels."""
        kernels_on_cpu()

    def close(self) -> None:
        """Free what is unused."""
        self.pool.free_idle()


class HostQueue:
    """Records what it is given, and does it when it is waited for; see `Queue`."""

    def __init__(self, device: HostDevice) -> None:
        self.device = device
        self._begun: list[Callable[[], object]] = []

    def empty(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> DeviceArray:
        """Return an array without gaps."""
        return array_in(self.device.pool.memory(math.prod(shape) * kind.itemsize), shape, kind)

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Begin to copy an array to the device."""
        self._begun.append(partial(ctypes.memmove, address, source.tobytes(), source.nbytes))

    def copy(self, address: int, row_bytes: int, source: DeviceArray) -> None:
        """Begin to copy rows."""
        assert source.strides[1:] == packed_strides(source.shape[1:], source.kind)
        size = math.prod(source.shape[1:]) * source.kind.itemsize
        for row in range(source.shape[0]):
            place = source.address + row * source.strides[0]
            self._begun.append(partial(ctypes.memmove, address + row * row_bytes, place, size))

    def download(self, source: DeviceArray) -> NDArray[Any]:
        """Wait for what was begun, and return the numbers of an array without gaps."""
        assert source.strides == packed_strides(source.shape, source.kind)
        self.wait()
        return np.frombuffer(ctypes.string_at(source.address, source.nbytes), source.kind).reshape(source.shape).copy()

    def run(self, kernel: KernelName, jobs: NDArray[Any]) -> None:
        """Begin to run a kernel."""
        table = jobs.copy()
        function = getattr(kernels_on_cpu(), f"run_{kernel}")
        # The table goes along, so that it is there when the kernel reads it.
        self._begun.append(lambda: function(ctypes.c_void_p(table.ctypes.data), len(table)))

    def follow_default_stream(self) -> None:
        """Nobody else works on this device."""

    def wait(self) -> None:
        """Do all that was begun."""
        begun, self._begun = self._begun, []
        for do in begun:
            do()
