"""Nothing is sent, looked up, or written outside deepscan's own folder and what the user asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.console import DEEPSCAN
from tests.footage import ASTRONAUT, NO_FACE
from tests.footprint import Footprint, footprint_of
from tests.seams.installed import install_plugin

ROOT = Path(__file__).parent.parent
WEIGHTS = str(ROOT / "weights" / "lite2.safetensors")
NOWHERE = {Path("/dev/null"), Path("/dev/tty"), Path("/dev/ptmx")}


def assert_private(found: Footprint, folder: Path, code: int = 0) -> None:
    """Check that a command did its work and nothing else."""
    assert found.code == code, found.said
    assert found.network == []
    own = (found.home / ".local" / "share" / "deepscan", folder / "out", folder / "tmp")
    outside = [
        path
        for path in found.written
        if path not in NOWHERE and not any(path == one or one in path.parents or path in one.parents for one in own)
    ]
    assert [path for path in outside if not str(path).startswith(("/proc/", "/sys/fs/cgroup"))] == []
    assert found.left == []
    homes = [Path(where) / name for where, _, names in os.walk(found.home) for name in names]
    assert [path for path in homes if own[0] not in path.parents] == []


def test_the_tracer_sees_look_ups_and_files(tmp_path: Path) -> None:
    """The other tests would pass if it saw nothing."""
    script = (
        "import os, socket, subprocess, sys\n"
        "open(os.path.expanduser('~/trace'), 'w').close()\n"
        "os.makedirs(os.path.expanduser('~/.cache/x'))\n"
        "subprocess.run([sys.executable, '-c', 'import socket; socket.socket(socket.AF_INET6)'])\n"
    )
    found = footprint_of([sys.executable, "-c", script], tmp_path)
    assert {found.home / "trace", found.home / ".cache" / "x"} <= found.written
    assert any("AF_INET6" in line for line in found.network)
    with pytest.raises(AssertionError):
        assert_private(found, tmp_path)


SCAN = [DEEPSCAN, "scan", str(ASTRONAUT), str(NO_FACE), "--frames", "2", "--log", "log", "--trace", "trace"]


def test_a_scan_and_looking_at_its_results_tell_nobody(tmp_path: Path) -> None:
    assert_private(footprint_of([*SCAN, "--backend", "onnxruntime"], tmp_path), tmp_path)
    assert (tmp_path / "out" / "results.csv").exists()
    assert_private(footprint_of([DEEPSCAN, "show", "results.jsonl"], tmp_path), tmp_path)


@pytest.mark.slow
def test_a_scan_with_the_backend_that_auto_takes_tells_nobody(tmp_path: Path) -> None:
    assert_private(footprint_of([*SCAN, "--backend", "auto"], tmp_path), tmp_path)
    assert "openvino-cpu" in (tmp_path / "out" / "results.csv").read_text()


@pytest.mark.parametrize("words", [["doctor"], ["weights", "list"], ["--help"]], ids=" ".join)
def test_a_command_that_only_shows_something_tells_nobody(tmp_path: Path, words: list[str]) -> None:
    found = footprint_of([DEEPSCAN, *words], tmp_path)
    assert_private(found, tmp_path)
    assert [path for path in found.written if path not in NOWHERE] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["export", "lite", "--weights", WEIGHTS, "--fp16", "--engine", "tensorrt-rtx", "--sm", "86"],
        ["bench", "lite", "--batch", "1", "--seconds", "0.01", "--plot", "plot.png", "--json", "b.json", "--save"],
        ["weights", "random", "toy"],
        ["models"],
    ],
    ids=lambda words: " ".join(words).replace(WEIGHTS, "FILE"),
)
def test_a_command_that_makes_something_tells_nobody(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(
        tmp_path / "plugin",
        monkeypatch,
        module="toy_detector",
        group="deepscan.detectors",
        entry="toy = toy_detector:DETECTOR",
    )
    assert_private(footprint_of([DEEPSCAN, *words], tmp_path), tmp_path)


@pytest.mark.slow
def test_a_program_that_uses_the_api_tells_nobody(tmp_path: Path) -> None:
    script = f"from deepscan import scan\nprint(*scan({str(NO_FACE)!r}, frames=1, backend='onnxruntime'))"
    assert_private(footprint_of([sys.executable, "-c", script], tmp_path), tmp_path)


def test_a_runtime_that_a_program_has_loaded_before_is_told_to_send_nothing() -> None:
    script = (
        "import onnxruntime\ncalls = []\n"
        "onnxruntime.disable_telemetry_events = lambda: calls.append(1)\n"
        "import deepscan.runtime.backends.sessions\nprint(len(calls))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
    )
    assert ran.stdout == "1\n"


def test_openvino_comes_without_its_telemetry() -> None:
    pytest.importorskip("openvino_telemetry")
    script = (
        "import sys\nfrom deepscan.runtime.backends import openvino_backend\nopenvino_backend._core()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
        "import openvino_telemetry"  # which the program itself may still use
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
