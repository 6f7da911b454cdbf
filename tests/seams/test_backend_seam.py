"""A backend of another package, through its entry point, without a line of deepscan changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import deepscan
from deepscan.errors import MachineError
from deepscan.runtime.backends.registry import backend_class, backend_names, usable_classes
from tests.seams.installed import install_plugin

PICTURE = Path(__file__).parents[2] / "examples" / "astronaut_h264.mp4"


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str = "toy = toy_backend:ToyBackend") -> None:
    install_plugin(folder, monkeypatch, module="toy_backend", group="deepscan.backends", entry=entry)


def test_a_scan_runs_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    scan = deepscan.scan(PICTURE, backend="toy", frames=2)
    (result,) = scan
    assert (result.status, result.backend, result.precision) == ("scored", "toy-cpu", "fp32")
    (detector,) = scan.detectors
    assert detector.computations == frozenset([("toy-cpu", "fp32")])


def test_it_is_listed_behind_those_of_deepscan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "toy" not in backend_names()
    install(tmp_path, monkeypatch)
    assert backend_names()[-1] == "toy"
    assert "toy" in usable_classes()


def test_one_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, monkeypatch, "toy = toy_backend:Missing")
    with pytest.raises(MachineError, match=r"^The backend toy cannot be imported from toy_backend:Missing \("):
        backend_class("toy")
    assert "toy" not in usable_classes()
    assert "toy_backend:Missing" in caplog.text
