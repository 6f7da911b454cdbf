from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepscan.cli import bench
from deepscan.errors import UsageError
from deepscan.export.artifact import store_artifact
from deepscan.installing import install_extra
from deepscan.runtime.system.machine import cpu_count
from tests.cli.console import DEEPSCAN, ENVIRONMENT, assert_one_line, deepscan
from tests.runtime.graphs import endless_artifact
from tests.runtime.watchdog import PATIENCE_SECONDS, wait_until

LEAST = ("--backend", "onnxruntime", "--device", "cpu", "--seconds", "0.01")


def test_a_benchmark_is_a_table_a_file_for_programs_and_a_plot(tmp_path: Path) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    ran = deepscan("bench", "lite", *LEAST, "--batch", "2,1,2", "--json", figures, "--plot", plot)
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(figures.read_text())
    assert report["complete"] is True
    assert report["failures"] == []
    assert report["setup"] == {"device": "cpu", "threads": cpu_count(), "batches": [1, 2], "seconds": 0.01}
    assert report["machine"]["processors"] == cpu_count()
    assert {"python", "deepscan", "onnxruntime"} <= report["machine"]["packages"].keys()
    assert [row["batch"] for row in report["measurements"]] == [1, 2]
    rows = [line.split() for line in ran.text.splitlines() if line.lstrip().startswith("onnxruntime-cpu fp32")]
    assert [row[2] for row in rows] == ["1", "2"]
    assert [row[7] for row in rows] == [str(row["latency"]["runs"]) for row in report["measurements"]]
    assert "1.15 GFLOP per crop" in ran.text
    assert report["machine"]["processor"] in ran.text
    assert "<svg" in plot.read_text()
    bench._refuse_bad_outputs(str(figures), plot)  # the next one may replace both


def test_json_on_stdout_is_alone_there_and_what_cannot_be_measured_costs_one_line() -> None:
    ran = deepscan("bench", "lite", *LEAST, "--batch", "1,999", "--threads", "1", "--json", "-")
    report = json.loads(ran.out)
    assert ran.code == 1
    assert [row["batch"] for row in report["measurements"]] == [1]
    [failure] = report["failures"]
    assert (failure["backend"], failure["precision"]) == ("onnxruntime", "fp32")
    first = ran.err.splitlines()[0]
    assert first == f"lite, onnxruntime fp32: not measured: {failure['reason']}"
    assert "onnxruntime-cpu fp32" in ran.err
    assert report["setup"]["threads"] == 1


def test_a_backend_that_is_missing_says_what_to_install_and_nothing_is_measured() -> None:
    ran = deepscan("bench", "lite", "--backend", "tensorrt", "--device", "cpu", "--seconds", "0.001")
    assert (ran.code, ran.out) == (3, b"")
    assert ran.err.startswith("lite, tensorrt fp32: not measured: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["heavy"], 2, "heavy"),
        (["lite,lite"], 2, "each detector once"),
        (["ftcn"], 3, "deepscan weights add"),
        (["missing.onnx"], 3, "missing.onnx does not exist"),
        (["lite", "--batch", "1,x"], 2, "--batch '1,x'"),
        (["lite", "--batch", "0"], 2, "--batch must be"),
        (["lite", "--plot", "plot.bmp"], 2, ".png or .svg"),
        (["lite", "--json", "nowhere/figures.json"], 3, "a folder that exists"),
        (["lite", "--precision", "int8"], 3, "--precision int8"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    ran = deepscan("bench", *arguments, cwd=tmp_path)
    assert_one_line(ran, code)
    assert message in ran.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("option", "name"), [("--json", "mine.json"), ("--plot", "mine.png"), ("--plot", "mine.svg")])
def test_a_file_that_no_benchmark_has_written_stays(tmp_path: Path, option: str, name: str) -> None:
    (tmp_path / name).write_text('{"mine": 1}')
    json, plot = (str(tmp_path / name), None) if option == "--json" else (None, tmp_path / name)
    with pytest.raises(UsageError, match=f"{name} exists and was not written by deepscan: choose another .* {option}"):
        bench._refuse_bad_outputs(json, plot)
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_without_matplotlib_a_plot_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys\nsys.modules['matplotlib'] = None\nfrom deepscan.cli.main import main\nmain()"
    ran = subprocess.run(
        [sys.executable, "-c", script, "bench", "lite", "--plot", "plot.png"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ENVIRONMENT,
        cwd=tmp_path,
    )
    assert ran.returncode == 3
    sentence = f"--plot needs the package matplotlib: run `{install_extra('plot')}`, or use --json."
    assert ran.stderr == f"deepscan: {sentence}\n"


def test_an_interrupt_keeps_what_was_measured_and_leaves_no_process(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    endless = store_artifact(endless_artifact(), tmp_path)
    running = subprocess.Popen(
        [DEEPSCAN, "bench", f"lite,{endless}", *LEAST, "--batch", "1", "--json", figures],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | ENVIRONMENT,
        cwd=tmp_path,
    )
    task = f'"model":"{endless}"'
    wait_until(lambda: any(task in line for line in commands_below(running.pid)), "the second detector")
    workers = children(running.pid)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=PATIENCE_SECONDS)
    assert running.returncode == 130
    report: dict[str, Any] = json.loads(figures.read_text())
    assert report["complete"] is False
    assert {row["model"] for row in report["measurements"]} == {"lite"}
    assert b"onnxruntime-cpu fp32" in out
    assert b"Interrupted" in err
    wait_until(lambda: not any(is_running(pid) for pid in workers), "an end of the processes that measure")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_running(pid: int) -> bool:
    """Tell whether a process is neither gone nor only waiting to be asked of what it died."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def commands_below(pid: int) -> list[str]:
    found = []
    for child in children(pid):
        try:
            found.append(Path(f"/proc/{child}/cmdline").read_text())
        except OSError:  # it has just ended
            continue
    return found
