"""From trained weights to artifacts and engines that scans and benchmarks use, through the real command."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from deepscan.cli import export_run
from deepscan.export import artifact
from tests.cli.console import QUICK, Ran, assert_one_line, deepscan
from tests.footage import ASTRONAUT, EXAMPLES, NO_FACE, SWAPPED

ROOT = Path(__file__).parents[2]
LITE = ("export", "lite")
FEW = 12  # crops that the half graph is compared on
FACES = 24  # of each kind: those to quantize with, and those to compare on
WEIGHTS = ROOT / "weights" / "lite2.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def half(home: Path, out: Path) -> Ran:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact, "PACKAGED_CROPS", FEW)
        ran = deepscan(
            *(*LITE, "--fp16", "--engine", "tensorrt-rtx", "--sm", "86,120", "--out", out),
            env={"DEEPSCAN_HOME": str(home)},
        )
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture(scope="module")
def eight_bits(out: Path) -> Ran:
    labels = out / "labels.csv"
    labels.write_text(f"path,label\n{ASTRONAUT},real\n{SWAPPED},fake\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact, "PACKAGED_CROPS", FACES)
        patch.setattr(export_run, "PARITY_CROPS", FACES)
        ran = deepscan(
            *(*LITE, "--int8", "--calibration-data", EXAMPLES, "--calibration-items", str(FACES), "--out", out),
            *("--parity-data", ASTRONAUT, "--parity-data", SWAPPED, "--labels", labels),
        )
    assert ran.code == 0, ran.err
    return ran


def test_half_precision_is_written_with_its_report_and_its_engines(half: Ran, out: Path, home: Path) -> None:
    report = json.loads((out / "lite-fp16.parity.json").read_text())
    assert report["misses"] == []
    assert 0 < report["parity"]["max_difference"] < 0.01
    assert "every half tensor rounded" in report["executed_by"]
    assert "**within the budget**" in (out / "lite-fp16.parity.md").read_text()
    manifest = json.loads((out / "lite-fp16.manifest.json").read_text())
    assert (manifest["precision"], manifest["parity_loss"], manifest["sha256"]) == ("fp16", "", report["sha256"])
    weights = (manifest["weights_file"], manifest["weights_sha256"])
    assert weights == (WEIGHTS.name, hashlib.sha256(WEIGHTS.read_bytes()).hexdigest())
    engines = sorted((home / "engines").glob("lite-fp16-*/*.plan"))
    assert [re.findall(r"-sm(\d+)$", engine.parent.name) for engine in engines] == [["120"], ["86"]]
    for engine in engines:
        assert str(engine) in half.err
        assert engine.stat().st_size > 1e6


def test_the_steps_are_shown_with_their_times_and_the_sizes(half: Ran) -> None:
    assert re.search(r"^ +\d+\.\d s  tracing the network to ONNX$", half.err, re.MULTILINE)
    assert re.search(r"lite-fp16\.onnx: 9\.\d+ MB, fp16, opset 18", half.err)
    assert re.search(rf"on {FEW} real faces: scores differ by at most 0\.00\d+", half.err)
    assert re.search(r"\.plan: \d+\.\d+ MB, tensorrt-rtx [\d.]+, compute capability 12\.0, built in \d", half.err)


@pytest.mark.slow  # quantizes
def test_a_scan_with_8_bits_says_what_ran_and_agrees(eight_bits: Ran, out: Path) -> None:
    assert "left out: " + str(NO_FACE) in eight_bits.err
    rows = {}
    for model in ("lite", str(out / "lite-int8.onnx")):
        ran = deepscan("scan", SWAPPED, *QUICK, "--model", model, "--out", "-")
        assert ran.code == 0, ran.err
        (rows[model],) = ran.rows
    original, quantized = rows.values()
    assert (original["precision"], quantized["precision"]) == ("fp32", "int8")
    assert original["score"] != quantized["score"]
    assert float(quantized["score"]) == pytest.approx(float(original["score"]), abs=0.1)


@pytest.mark.slow  # quantizes
def test_the_manifest_tells_where_the_ranges_come_from(eight_bits: Ran, out: Path) -> None:
    calibration = json.loads((out / "lite-int8.manifest.json").read_text())["calibration"]
    assert (calibration["method"], calibration["activations"], calibration["seed"]) == ("percentile", "affine", 0)
    assert FACES * 3 / 4 < calibration["items"] <= FACES
    report = json.loads((out / "lite-int8.parity.json").read_text())
    assert set(calibration["kept"]) == set(report["kept"])
    assert 0 < report["parity"]["mean_difference"] <= 0.02
    assert report["parity"]["auc"] is not None


@pytest.mark.slow  # quantizes
def test_an_engine_needs_an_artifact_without_zero_points(eight_bits: Ran, out: Path, home: Path) -> None:
    ran = deepscan(
        *("export", out / "lite-int8.onnx", "--engine", "tensorrt-rtx", "--sm", "86"), env={"DEEPSCAN_HOME": str(home)}
    )
    assert_one_line(ran, 3)
    assert "export it again with both --int8 and --engine" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["lite", "--int8"], 2, "--calibration-data FOLDER"),
        (["lite", "--int8", "--calibration-data", str(NO_FACE)], 2, "no_face"),
        (["lite", "--fp16", "--int8"], 2, "exclude each other"),
        (["lite", "--calibration-data", "x"], 2, "--int8"),
        (["lite", "--sm", "86"], 2, "--engine"),
        (["lite", "--engine", "tensorrt-rtx", "--sm", "x"], 2, "86,89,120"),
        (["lite", "--labels", "x.csv"], 2, "--parity-data"),
        (["lite", "--form", "2d"], 2, "no 3-D convolutions"),
        (["nothing"], 2, "No detector is called 'nothing'"),
        (["ftcn"], 3, "deepscan weights add"),
        (["lite.onx"], 2, "did you mean lite"),
        (["nowhere.onnx"], 3, "nowhere.onnx does not exist: check the path"),
        (["nowhere.onnx", "--engine", "tensorrt-rtx", "--sm", "86"], 3, "does not exist"),
        (["nowhere.pth"], 2, "nowhere.pth does not exist"),
        ([str(WEIGHTS)], 2, f"run `deepscan weights add {WEIGHTS}`"),
        ([str(ROOT / "weights")], 2, "is a folder, not a detector"),
        ([str(ROOT / "deepscan" / "assets" / "lite.onnx")], 2, "is already exported: only --engine"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    ran = deepscan("export", *arguments, cwd=tmp_path)
    assert_one_line(ran, code)
    assert says in ran.err
    assert list(tmp_path.iterdir()) == []
