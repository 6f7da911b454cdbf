from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.detector_names import DETECTORS, refuse_missing_artifact, unknown_detector
from deepscan.errors import ModelError
from deepscan.models.specs import SPECS


def test_the_names_are_those_of_the_specs() -> None:
    assert tuple(SPECS) == DETECTORS


@pytest.mark.parametrize(
    ("name", "near"),
    [("light", "lite"), ("Lite", "lite"), ("altfreezng", "altfreezing"), ("caddm", "caddm-resnet34"), ("rec", "recce")],
)
def test_near_names_are_suggested_and_all_are_listed(name: str, near: str) -> None:
    said = str(unknown_detector(name))
    assert said.startswith(f"No detector is called '{name}' (did you mean ")
    assert near in said.partition("?")[0]
    assert ", ".join(DETECTORS) in said


@pytest.mark.parametrize("name", ["", "qqqqqq", "\0"])
def test_nothing_is_suggested_where_nothing_is_near(name: str) -> None:
    assert str(unknown_detector(name)).startswith(f"No detector is called {name!r}: use one of lite, ")


def test_a_face_detector_is_told_from_a_misspelt_name() -> None:
    said = str(unknown_detector("retinaface"))
    assert said.startswith(
        'retinaface finds faces and detects no forgeries: name it with face_detector="retinaface", and'
    )


def test_files_folders_and_missing_paths_each_have_a_sentence(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"")
    assert f"{weights} is a file and no detector: if it holds weights, run `deepscan weights add {weights}`" in str(
        unknown_detector(str(weights))
    )
    assert str(unknown_detector(str(tmp_path))).startswith(f"{tmp_path} is a folder and no detector: use the name")
    assert str(unknown_detector("gone.SafeTensors")).startswith("gone.SafeTensors does not exist, and no detector")


def test_an_exported_detector_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    (tmp_path / "there.onnx").write_bytes(b"")
    refuse_missing_artifact(str(tmp_path / "there.onnx"))
    with pytest.raises(ModelError, match=r"folder\.onnx is a folder: give the \.onnx file in it"):
        refuse_missing_artifact(str(folder))
    for path in (tmp_path / "gone.onnx", tmp_path / "there.onnx" / "below.onnx"):
        with pytest.raises(ModelError, match=r"\.onnx does not exist: check the path"):
            refuse_missing_artifact(str(path))
