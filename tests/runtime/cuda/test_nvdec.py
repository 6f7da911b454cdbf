"""What the driver says of its video decoders is read right: against a library with the same interface, in C."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepscan.runtime.cuda.cuda_device import CudaDevice
from deepscan.runtime.cuda.nvdec import DecodeCaps, DecodeCapsStruct, Nvdec, nvdec

C_SOURCE = Path(__file__).with_name("driver_on_cpu.c")
FULL_HD_MACROBLOCKS = 120 * 68


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("driver")
    path = str(folder / "driver.so")
    own_cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-std=c11",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ]
    # Without the C library, which nothing here uses, and which would be compiled first.
    subprocess.run([*command, "-nostdlib", str(C_SOURCE), "-o", path], check=True, env=os.environ | own_cache)
    return path


@pytest.fixture
def driver(library: str) -> ctypes.CDLL:
    return ctypes.CDLL(library)


def number(driver: ctypes.CDLL, name: str) -> ctypes.c_int:
    """Return a variable of the library."""
    return ctypes.c_int.in_dll(driver, name)


def test_the_struct_is_laid_out_as_in_c(driver: ctypes.CDLL) -> None:
    assert ctypes.sizeof(DecodeCapsStruct) == 88 == number(driver, "caps_bytes").value
    assert DecodeCapsStruct.min_height.offset == 42 == number(driver, "caps_min_height_at").value


def test_the_answers_are_read(library: str) -> None:
    nv12, both = frozenset(["nv12"]), frozenset(["nv12", "p016"])
    hevc = DecodeCaps(7, 144, 144, 8192, 8192, 262144, both)
    found = nvdec(library)
    assert found.modes == {
        ("h264", "420", 8): DecodeCaps(5, 48, 16, 4096, 4032, 65536, nv12),
        ("hevc", "420", 8): hevc,
        ("hevc", "420", 10): hevc,
    }
    assert (found.problem, found.engines) == (None, 7)


def test_a_driver_that_does_not_answer_has_no_decoders(library: str, driver: ctypes.CDLL) -> None:
    unanswered = number(driver, "without_context")
    unanswered.value = 1
    try:
        found = nvdec(library)
    finally:
        unanswered.value = 0
    assert not found.modes
    assert found.problem is not None
    assert "201" in found.problem


def test_a_machine_without_the_library_has_no_decoders(tmp_path: Path) -> None:
    found = nvdec(str(tmp_path / "libnvcuvid.so.1"))
    assert (found.modes, found.engines) == ({}, 0)
    assert found.problem is not None
    assert "cannot be loaded" in found.problem


def test_a_library_without_the_function_has_no_decoders() -> None:
    assert "cannot be loaded" in (nvdec("libc.so.6").problem or "")


def test_no_decoders_by_default() -> None:
    assert Nvdec() == Nvdec({}, None)


@pytest.mark.gpu
def test_a_gpu_decodes_full_hd() -> None:
    device = CudaDevice(0)
    device.queue()
    found = nvdec()
    device.close()
    assert found.problem is None
    for mode in [("h264", "420", 8), ("hevc", "420", 8), ("hevc", "420", 10)]:
        caps = found.modes[mode]
        assert caps.min_width <= 1920 <= caps.max_width
        assert caps.min_height <= 1080 <= caps.max_height
        assert caps.max_macroblocks >= FULL_HD_MACROBLOCKS
        assert ("nv12" if mode[2] == 8 else "p016") in caps.surfaces
    assert found.engines > 0
