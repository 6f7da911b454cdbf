"""Adding weights, and asking for detectors whose weights are not there, through the real command.

What comes of a checkpoint: `test_clip_detector_commands.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.export import artifact
from deepscan.models.detector import Detector
from deepscan.models.lite import DETECTOR
from deepscan.models.registry import BUILTIN
from tests.cli.console import assert_one_line, deepscan, rows_of
from tests.footage import ASTRONAUT
from tests.runtime.graphs import small_frame_network
from tests.runtime.tiny_detectors import TINY_FRAME

WEIGHTS = Path(__file__).parents[2] / "weights"


@pytest.mark.parametrize("name", ["ftnc", "FTCN", "caddm", "nosuch"])
def test_a_misspelt_detector_is_not_taken_for_missing_weights(name: str) -> None:
    ran = deepscan("scan", ASTRONAUT, "--model", name)
    assert_one_line(ran, 2)
    assert f"No detector is called {name!r}" in ran.err


def test_the_face_detector_has_a_card_and_a_sentence(tmp_path: Path) -> None:
    env = {"DEEPSCAN_HOME": str(tmp_path)}
    assert "mobilenet0.25_Final.pth" in deepscan("models", "retinaface", env=env).text
    ran = deepscan("scan", ASTRONAUT, "--face-detector", "retinaface", env=env)
    assert_one_line(ran, 3)
    assert "deepscan models retinaface" in ran.err


def test_without_weights_the_three_steps_are_named(tmp_path: Path) -> None:
    ran = deepscan("scan", ASTRONAUT, "--model", "altfreezing", env={"DEEPSCAN_HOME": str(tmp_path)})
    assert_one_line(ran, 3)
    for step in ("deepscan models altfreezing", "deepscan weights add FILE", "run this again"):
        assert step in ran.err


def test_random_weights_are_called_untrained_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Detector(spec=TINY_FRAME, build=small_frame_network, publication=DETECTOR.publication)
    monkeypatch.setitem(BUILTIN, TINY_FRAME.name, small)
    monkeypatch.setattr(artifact, "PACKAGED_CROPS", 4)
    env = {"DEEPSCAN_HOME": str(tmp_path / "home")}
    ran = deepscan("weights", "random", "tiny-frame", "--seed", "3", env=env)
    assert ran.code == 0, ran.err
    assert "random: the scores mean nothing" in ran.err
    assert "(untrained)" in deepscan("weights", "list", env=env).text
    assert "UNTRAINED" in deepscan("models", "tiny-frame", env=env).text
    out = tmp_path / "r.csv"
    ran = deepscan("scan", ASTRONAUT, "--model", "tiny-frame", "--frames", "1", "--out", out, env=env)
    (row,) = rows_of(out.read_bytes())
    assert row["model"] == "tiny-frame (untrained)"
    assert row["status"] == "scored"
    assert "tiny-frame (untrained): random weights" in ran.err


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"cos\nsystem\n(S'touch pwned'\ntR."])
def test_what_is_no_checkpoint_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    ran = deepscan("weights", "add", path, env={"DEEPSCAN_HOME": str(tmp_path / "home")}, cwd=tmp_path)
    assert_one_line(ran, 3)
    assert str(path) in ran.err
    assert not (tmp_path / "pwned").exists()


def test_the_embedded_detector_and_unknown_names_take_no_weights(tmp_path: Path) -> None:
    env = {"DEEPSCAN_HOME": str(tmp_path / "home")}
    for name in ("lite", "nonsense"):
        assert_one_line(deepscan("weights", "random", name, env=env), 2)
    assert_one_line(deepscan("weights", "add", WEIGHTS / "lite2.safetensors", env=env), 2)
    ran = deepscan("weights", "remove", "lite", env=env)
    assert_one_line(ran, 2)
    assert "lite comes inside deepscan" in ran.err
