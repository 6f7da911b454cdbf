"""A backend of another package, through its entry point, without a line of deepscan changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deepscan
from deepscan.errors import MachineError, UsageError
from deepscan.export.bench.bench_records import BenchSettings
from deepscan.export.bench.benching import subjects_of
from deepscan.runtime.backends.registry import backend_class, backend_names, usable_classes
from tests.cli.console import deepscan as run
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


def test_a_benchmark_measures_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    least = ("--device", "cpu", "--batch", "1", "--seconds", "0.01")
    ran = run("bench", "lite", "--backend", "toy", *least, "--json", "-")
    assert (ran.code, ran.err.count("not measured")) == (0, 0)
    [measurement] = json.loads(ran.out)["measurements"]
    assert (measurement["backend"], measurement["ran_as"], measurement["precision"]) == ("toy", "toy-cpu", "fp32")


@pytest.mark.parametrize("name", ["toy", "auto"])
def test_a_benchmark_refuses_a_backend_that_does_not_exist_with_the_names_of_those_that_do(name: str) -> None:
    setup = BenchSettings(device="cpu", threads=1, batches=(1,), seconds=0.01)
    names = "all, onnxruntime, openvino, torch, tensorrt, ort-tensorrt"
    with pytest.raises(UsageError, match=rf"'{name}' is not known: use one of {names}\.$"):
        subjects_of(["lite"], setup, backend=name, precision="all")


def test_it_is_listed_behind_those_of_deepscan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "toy" not in backend_names()
    install(tmp_path, monkeypatch)
    assert backend_names()[-1] == "toy"
    assert "toy" in usable_classes()


def test_one_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path, monkeypatch, "toy = toy_backend:Missing")
    with pytest.raises(MachineError, match=r"^The backend toy that .*\(toy_backend:Missing raises Attrib"):
        backend_class("toy")
    assert "toy" not in usable_classes()
    assert "toy_backend:Missing" in caplog.text
