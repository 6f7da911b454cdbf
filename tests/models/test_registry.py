from __future__ import annotations

from pathlib import Path

import pytest

from deepscan.models.registry import BUILTIN, unknown_detector


@pytest.mark.parametrize(
    ("name", "near"),
    [("light", "lite"), ("Lite", "lite"), ("altfreezng", "altfreezing"), ("caddm", "caddm-resnet34"), ("rec", "recce")],
)
def test_near_names_are_suggested_and_all_are_listed(name: str, near: str) -> None:
    said = str(unknown_detector(name))
    assert said.startswith(f"No detector is called '{name}' (did you mean ")
    assert near in said.partition("?")[0]
    assert ", ".join(BUILTIN) in said


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
    assert f"{weights} is a file, not a detector: if it holds weights, run `deepscan weights add {weights}`" in str(
        unknown_detector(str(weights))
    )
    assert str(unknown_detector(str(tmp_path))).startswith(f"{tmp_path} is a folder, not a detector: use the name")
    assert str(unknown_detector("gone.SafeTensors")).startswith("gone.SafeTensors does not exist, and no detector")
