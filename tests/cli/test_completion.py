from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deepscan.cli.completion import (
    complete_added,
    complete_detector,
    complete_exportable,
    complete_models,
)
from deepscan.models.registry import BUILTIN
from deepscan.runtime.artifacts.weights_store import RECORD, Record, weights_folder
from deepscan.runtime.system.files import HOME_VARIABLE
from tests.cli.console import deepscan


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with an exported model and some weights in the store."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    for name, sha256 in (("ftcn", "a" * 64), ("hff", "b" * 64), ("hff", "c" * 64)):
        folder = weights_folder(name, sha256)
        folder.mkdir(parents=True)
        record = Record(name=name, kind="detector", sha256=sha256, file="x.pth", trained=True, added=1.0, note="")
        (folder / RECORD).write_bytes(msgspec.json.encode(record))
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.onnx").touch()
    (tmp_path / "lean.onnx").touch()
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", ["lite", "ftcn", "hff", "lean.onnx"]),
        ("l", ["lite", "lean.onnx"]),
        ("ma", ["made/"]),
        ("made/", ["made/mine.onnx"]),
        ("lite,", ["lite,ftcn", "lite,hff", "lite,lean.onnx"]),
        ("lite,f", ["lite,ftcn"]),
        ("nothing", []),
        ("missing/", []),
    ],
)
def test_models_are_those_that_can_scan_here(typed: str, offered: list[str]) -> None:
    assert complete_models(typed) == offered


def test_detectors_that_are_not_here_are_offered_where_they_can_be_named() -> None:
    assert complete_detector("") == [*BUILTIN, "retinaface"]
    assert complete_detector("re") == ["recce", "recce-deepfakebench", "retinaface"]
    assert complete_exportable("l") == ["lite", "lean.onnx"]
    assert complete_added("") == ["ftcn", "ftcn@aaaaaaaaaaaa", "hff@bbbbbbbbbbbb", "hff@cccccccccccc"]


def test_a_store_that_cannot_be_read_offers_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, "/proc/1/root/nowhere")
    assert complete_models("f") == []


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("deepscan scan --model ft", "ftcn"),
        ("deepscan models ftcn-", "ftcn-deepfakebench"),
        ("deepscan show a --status no", "no_face"),
    ],
)
def test_the_shell_gets_them(typed: str, offered: str) -> None:
    words = {"_DEEPSCAN_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert deepscan(env=words).text.split() == [offered]
