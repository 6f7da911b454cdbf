from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deepscan.errors import ModelError, UsageError
from deepscan.runtime.artifacts.weights_store import (
    RECORD,
    Kind,
    Record,
    damaged_folders,
    find_installed,
    installed,
    remove_installed,
    weights_folder,
)
from deepscan.runtime.system.files import HOME_VARIABLE, data_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def add(name: str, sha256: str, added: float, *, trained: bool = True) -> Record:
    kind: Kind = "face detector" if name == "retinaface" else "detector"
    record = Record(name=name, kind=kind, sha256=sha256, file=f"{name}.pth", trained=trained, added=added, note="")
    weights_folder(name, sha256).mkdir(parents=True)
    (weights_folder(name, sha256) / RECORD).write_bytes(msgspec.json.encode(record))
    return record


def test_the_data_folder_follows_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == home
    monkeypatch.delenv(HOME_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert data_folder() == Path("/data/deepscan")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert data_folder() == Path("/home/somebody/.local/share/deepscan")


def test_an_empty_store_says_what_to_do() -> None:
    assert installed() == []
    with pytest.raises(ModelError, match=r"'ftcn'.*deepscan models ftcn.*deepscan weights add FILE.*run this again\.$"):
        find_installed("ftcn")


def test_the_latest_of_a_name_is_found_and_others_by_their_hash() -> None:
    old, new, other = add("ftcn", "a1" * 32, 1.0), add("ftcn", "a2" * 32, 2.0), add("recce", "b1" * 32, 3.0)
    assert [entry.record for entry in installed()] == [new, old, other]
    assert find_installed("ftcn").record == new
    assert find_installed("ftcn@a1a1").record == old
    assert find_installed("recce").record == other
    with pytest.raises(ModelError, match="begin with 'b1b1'"):
        find_installed("ftcn@b1b1")


def test_a_hash_that_could_be_several_or_none_is_refused() -> None:
    add("ftcn", "abcd1" + "0" * 59, 1.0)
    add("ftcn", "abcd2" + "0" * 59, 2.0)
    with pytest.raises(ModelError, match="more digits"):
        find_installed("ftcn@abcd")
    for nothing in ("ftcn@", "ftcn@zz"):
        with pytest.raises(ModelError, match="begin with"):
            find_installed(nothing)
    assert find_installed("ftcn@abcd1").record.added == 1.0


def test_random_weights_never_come_before_trained_ones() -> None:
    trained, random = add("ftcn", "a1" * 32, 1.0), add("ftcn", "a2" * 32, 2.0, trained=False)
    assert find_installed("ftcn").record == trained
    assert find_installed("ftcn@a2").record == random
    remove_installed(find_installed("ftcn@a1"))
    assert find_installed("ftcn").record == random


def test_one_file_may_be_there_as_both_variants() -> None:
    add("ftcn", "a1" * 32, 1.0)
    add("ftcn-deepfakebench", "a1" * 32, 2.0)
    assert [entry.record.name for entry in installed()] == ["ftcn", "ftcn-deepfakebench"]


def test_a_face_detector_is_no_detector() -> None:
    add("retinaface", "a1" * 32, 1.0)
    assert find_installed("retinaface", "face detector").record.added == 1.0
    with pytest.raises(UsageError, match="retinaface finds faces and detects no forgeries"):
        find_installed("retinaface")


def test_what_was_removed_is_gone() -> None:
    add("ftcn", "a1" * 32, 1.0)
    entry = find_installed("ftcn")
    remove_installed(entry)
    assert installed() == []
    assert not entry.folder.exists()


def test_a_damaged_record_harms_no_other() -> None:
    add("ftcn", "a1" * 32, 1.0)
    recce = add("recce", "b1" * 32, 1.0)
    (weights_folder("ftcn", "a1" * 32) / RECORD).write_text('{"name": 3}')
    assert [entry.record for entry in installed()] == [recce]
    assert damaged_folders() == [weights_folder("ftcn", "a1" * 32)]
    with pytest.raises(ModelError, match="'ftcn' are installed"):
        find_installed("ftcn")
