"""A detector of another package, tried with the commands themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deepscan.errors import ModelError
from deepscan.export import artifact
from deepscan.models.registry import detectors, find_detector, unknown_detector
from tests.cli.console import QUICK, deepscan, rows_of
from tests.footage import ASTRONAUT
from tests.seams.installed import install_plugin

GROUP = "deepscan.detectors"
ENTRY = "toy = toy_detector:DETECTOR"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path / "plugin", monkeypatch, module="toy_detector", group=GROUP, entry=ENTRY)
    monkeypatch.setenv("DEEPSCAN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(artifact, "PACKAGED_CROPS", 4)


def test_it_takes_at_most_forty_lines() -> None:
    assert len(Path(__file__).with_name("toy_detector.py").read_text().splitlines()) <= 40


@pytest.mark.usefixtures("toy")
def test_a_detector_of_another_package_is_listed_exported_and_scans(tmp_path: Path) -> None:
    assert "Mean of colors" in deepscan("models").text
    assert "toy" in str(unknown_detector("tory"))
    checkpoint = tmp_path / "trained.pth"
    torch.save({"2.weight": torch.tensor([[1.0, 2.0, 3.0]]), "2.bias": torch.tensor([0.5])}, checkpoint)
    added = deepscan("weights", "add", checkpoint)
    assert "trained.pth: toy, sha256 " in added.err
    scores = {}
    for backend in ("onnxruntime", "torch"):
        ran = deepscan("scan", ASTRONAUT, "--model", "toy", "--out", "-", "--backend", backend, *QUICK)
        assert ran.code == 0, ran.err
        (row,) = rows_of(ran.out)
        assert (row["model"], row["status"], row["backend"]) == ("toy", "scored", f"{backend}-cpu")
        scores[backend] = float(row["score"])
    assert scores["torch"] == pytest.approx(scores["onnxruntime"], abs=1e-4)
    made = deepscan("weights", "random", "toy")
    assert "The scores mean nothing".lower() in made.err.lower()


def test_one_that_cannot_be_loaded_disturbs_nobody_but_those_who_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for entry, said in (
        ("toy = toy_detector:MISSING", r"toy that toy_detector adds .*toy_detector:MISSING raises AttributeError: "),
        (
            "bear = toy_detector:DETECTOR",
            r"bear that .*\(toy_detector:DETECTOR is not a Detector called bear\): update",
        ),
    ):
        folder = tmp_path / entry.partition(" ")[0]
        with monkeypatch.context() as patch:
            install_plugin(folder, patch, module="toy_detector", group=GROUP, entry=entry)
            assert "lite" in detectors()
            assert "update or remove that package" in caplog.text
            with pytest.raises(ModelError, match=rf"^The detector {said}"):
                find_detector(folder.name)
