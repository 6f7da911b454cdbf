from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.export.bench.bench_records import BenchReport, BenchResult, BenchSettings, Measurement
from deepscan.export.bench.latency import measured_latency
from deepscan.export.bench.saving import save_fastest
from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import embedded_manifest
from deepscan.runtime.backends.saved_choices import saved_choice
from deepscan.runtime.backends.selection import Candidate, resolve_backend
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.runtime.system.machine import environment
from tests.cli.console import deepscan

LITE = embedded_manifest("lite")
LATENCY = measured_latency(lambda: None, seconds=0.001)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    return tmp_path


def measurement(backend: str, precision: Arithmetic, rate: float) -> Measurement:
    return Measurement(
        model="lite",
        backend=backend,
        ran_as=f"{backend}-cpu",
        precision=precision,
        batch=1,
        latency=LATENCY,
        items_per_second=rate,
        ready_seconds=1.0,
        memory_bytes=None,
        gpu_memory_bytes=None,
    )


def report(*measurements: Measurement) -> BenchReport:
    return BenchReport(
        complete=True,
        machine=environment(),
        setup=BenchSettings(device="cpu", threads=1, batches=None, seconds=1.0),
        rates=(),
        artifacts=(
            BenchResult(
                model="lite",
                file=LITE.file,
                sha256=LITE.sha256,
                size_bytes=LITE.size_bytes,
                weights_sha256=LITE.weights_sha256,
                trained=True,
                precision="fp32",
                form=None,
                kind="crop",
                flop_per_item=None,
                inputs=16,
                inputs_sha256="",
            ),
        ),
        measurements=measurements,
        failures=(),
    )


def test_the_fastest_that_keeps_the_budget_is_saved_and_auto_takes_it(caplog: pytest.LogCaptureFixture) -> None:
    measured = report(
        measurement("openvino", "bf16", 90.0),  # moves a score by 0.038, or this processor has no bfloat16
        measurement("openvino", "fp32", 30.0),
        measurement("onnxruntime", "fp32", 40.0),
        measurement("onnxruntime", "fp32", 50.0),
    )
    [(path, choice)] = save_fastest(measured)
    assert path.is_file()
    assert (choice.backend, choice.precision, choice.items_per_second) == ("onnxruntime", "fp32", 50.0)
    assert choice.max_difference == 0.0
    assert saved_choice(LITE.sha256, "cpu") == choice
    assert resolve_backend(LITE, backend="auto", precision="auto", device="cpu") == Candidate("onnxruntime", "fp32")
    assert "lite.onnx: openvino bf16 is not saved: " in caplog.text


def test_nothing_is_saved_of_what_was_not_measured(home: Path) -> None:
    assert save_fastest(report()) == []
    assert list(home.iterdir()) == []


def test_the_command_says_what_auto_now_takes_and_doctor_shows_it(home: Path) -> None:
    where = ("--backend", "onnxruntime", "--device", "cpu", "--seconds", "0.01", "--batch", "1")
    ran = deepscan("bench", "lite", *where, "--save")
    assert (ran.code, ran.err) == (0, "")
    [file] = (home / "backends").iterdir()
    last = f"lite.onnx on cpu: --backend auto now takes onnxruntime fp32; delete {file} to undo this."
    assert ran.text.splitlines()[-1] == last
    assert "saved by bench in" in " ".join(deepscan("doctor").text.split())
