from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.console import DEEPSCAN, ENVIRONMENT, QUICK, assert_one_line, deepscan
from tests.footage import NO_FACE


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--from-file", "missing"], 2),
        (["{video}", "--frames", "4", "--sampling", "full"], 2),
        (["{video}", "--clips", "2"], 2),
        (["{video}", "--model", "lite,lite"], 2),
        (["{video}", "--out", "."], 2),
        (["{video}", "--out", "{video}"], 2),
        (["{video}", "--model", "no such detector"], 2),
        (["{video}", "--model", "lite,ftcn"], 3),
        (["{video}", "--face-detector", "retinaface"], 3),
        (["{video}", "--model", "{video}"], 2),
        (["{video}", "--model", "missing.onnx"], 3),
        (["{video}", "--precision", "fp16"], 3),
        (["{video}", "--out", "results.xlsx"], 2),
        (["{video}", "--out", "results.jsonl"], 2),
        (["{video}", "--out", "r" * 247 + ".csv"], 2),
        (["{video}", "--out", "-", "--prune"], 2),
        (["{video}", "--log", "-"], 2),
        (["{video}", "--out", "{video}/results.csv"], 3),
    ],
)
def test_a_scan_that_cannot_begin_says_why_in_one_line(tmp_path: Path, arguments: list[str], code: int) -> None:
    before = NO_FACE.read_bytes()
    assert_one_line(deepscan("scan", *(part.format(video=NO_FACE) for part in arguments), cwd=tmp_path), code)
    assert os.listdir(tmp_path) == []
    assert NO_FACE.read_bytes() == before


def test_a_dry_run_writes_nothing_at_all(tmp_path: Path) -> None:
    for name in ("home", "data", "cache", "work"):
        (tmp_path / name).mkdir()
    home = {"HOME": str(tmp_path / "home"), "DEEPSCAN_HOME": str(tmp_path / "data")}
    home |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    ran = deepscan("scan", NO_FACE, "--dry-run", "--log", "L", "--trace", "T", cwd=tmp_path / "work", env=home)
    assert ran.code == 0, ran.err
    assert ran.text == f"1\tscan\t{NO_FACE}\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cache", "data", "home", "work"]


@pytest.mark.parametrize("option", ["--log", "--trace"])
def test_a_dry_run_says_what_is_wrong_with_a_log_or_a_trace(tmp_path: Path, option: str) -> None:
    (tmp_path / "mine").write_text("something else")
    for place, says in (("mine", f"mine exists and is not a {option.removeprefix('--')}"), ("none/L", "No such file")):
        ran = deepscan("scan", NO_FACE, "--dry-run", option, place, cwd=tmp_path)
        assert_one_line(ran, 3)
        assert says in ran.err
    assert (os.listdir(tmp_path), (tmp_path / "mine").read_text()) == (["mine"], "something else")


def test_cuda_that_cannot_be_had_is_refused_in_one_line(tmp_path: Path) -> None:
    ran = deepscan("scan", NO_FACE, "--device", "cuda", cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    assert_one_line(ran, 3)
    assert "--device cuda cannot be used" in ran.err


@pytest.mark.parametrize(
    "option",
    [
        ["--no-such-option"],
        ["--frames", "0"],
        ["--frames", "four"],
        ["--clips", "0"],
        ["--jobs", "0"],
        ["--threshold", "1.5"],
        ["--threshold", "nan"],
        ["--sampling", "some"],
        ["--device", "tpu"],
        ["--aggregate", "median"],
        ["--face-detector", "dlib"],
    ],
)
def test_an_option_that_makes_no_sense_is_wrong_usage(tmp_path: Path, option: list[str]) -> None:
    ran = deepscan("scan", NO_FACE, *option, cwd=tmp_path)
    assert (ran.code, ran.out) == (2, b"")
    assert option[0] in ran.err
    assert "Traceback" not in ran.err
    assert os.listdir(tmp_path) == []


LIMITED = """
import resource, os, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # less than a row
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("out", ["results.csv", "-"])
def test_a_full_disk_ends_the_scan_in_one_line(tmp_path: Path, out: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, DEEPSCAN, "scan", NO_FACE, "-q", *QUICK, "--out", out],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
    )
    assert child.returncode == 3
    assert child.stderr.startswith("deepscan: ")
    assert child.stderr.count("\n") == 1
    assert "cannot be written" in child.stderr
    assert os.listdir(tmp_path) in ([], ["results.jsonl"])  # which a next run goes on with


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_stdout_that_cannot_be_written_ends_the_scan_in_one_line(tmp_path: Path, unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        child = subprocess.run(
            [DEEPSCAN, "scan", NO_FACE, "-q", *QUICK, "--out", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    expected = "deepscan: stdout cannot be written (No space left on device): send it to another place.\n"
    assert (child.returncode, child.stderr) == (3, expected)
