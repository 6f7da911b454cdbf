"""A checkout that is not installed, on a machine without OpenVINO, TensorRT and what only developers need."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import msgspec
import pytest

from deepscan.runtime.system.machine import nvidia_gpus
from tests.runtime import engines

ROOT = Path(__file__).parent.parent
ABSENT = ("openvino", "tensorrt", "deepscan", "__editable__", "importlinter", "nox", "hatch", "ziglang")
NEED_MORE = ["tests/calibration", "tests/runtime/backends/tensorrt"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of this environment, without the absent ones."""
    folder = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(ABSENT) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


def run(packages: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python there; without `site` it sees no other packages."""
    path = os.pathsep.join([str(ROOT), str(packages)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"} | variables
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def gpu_tests(packages: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(packages, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *arguments, **variables)


@pytest.mark.parametrize("tests", [NEED_MORE, pytest.param(["tests"], marks=pytest.mark.slow)])
def test_without_openvino_and_tensorrt_tests_on_a_gpu_are_skipped_and_say_why(packages: Path, tests: list[str]) -> None:
    assert "No module named 'openvino'" in run(packages, "-c", "import openvino").stderr
    ran = gpu_tests(packages, "-k", "tensorrt", *tests, DEEPSCAN_REQUIRE_GPU="1")
    assert ran.returncode == 0, ran.stdout
    reasons = {line.rpartition(": ")[2] for line in ran.stdout.splitlines() if line.startswith("SKIPPED")}
    assert reasons == {"no package of TensorRT is installed"}


@pytest.mark.skipif(bool(nvidia_gpus()), reason="there is a GPU")
def test_the_benchmark_of_gpus_starts_and_says_that_there_is_none(packages: Path) -> None:
    ran = run(packages, "-m", "benchmarks.gpu", "decode")
    assert (ran.returncode, ran.stdout) == (3, "")
    (sentence,) = ran.stderr.splitlines()
    assert sentence.startswith("No NVIDIA GPU is here: ")


def test_a_gpu_that_no_installed_package_of_tensorrt_runs_on_skips_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = msgspec.structs.replace(engines.TARGET, compute_capability="9.0", gpu="NVIDIA H200")
    monkeypatch.setattr(engines, "installed_flavors", lambda: ("tensorrt-rtx",))
    monkeypatch.setattr(engines, "present_target", lambda: hopper)
    monkeypatch.setattr(engines, "usable_packages", lambda _: ())
    with pytest.raises(pytest.skip.Exception, match="runs on NVIDIA H200"):
        engines.packages_here()
