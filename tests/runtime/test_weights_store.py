from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deepscan.errors import ModelError
from deepscan.runtime.weights_store import (
    HOME_VARIABLE,
    RECORD,
    Record,
    data_folder,
    find_installed,
    installed,
    remove_installed,
    weights_folder,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def add(name: str, sha256: str, added: float) -> Record:
    record = Record(name=name, kind="detector", sha256=sha256, file=f"{name}.pth", trained=True, added=added, note="")
    weights_folder(sha256).mkdir(parents=True)
    (weights_folder(sha256) / RECORD).write_bytes(msgspec.json.encode(record))
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


def test_a_hash_that_could_be_several_or_is_too_short_is_refused() -> None:
    add("ftcn", "abcd1" + "0" * 59, 1.0)
    add("ftcn", "abcd2" + "0" * 59, 2.0)
    for prefix in ("abcd", "abc"):
        with pytest.raises(ModelError, match="more digits"):
            find_installed(f"ftcn@{prefix}")
    assert find_installed("ftcn@abcd1").record.added == 1.0


def test_what_was_removed_is_gone() -> None:
    add("ftcn", "a1" * 32, 1.0)
    entry = find_installed("ftcn")
    remove_installed(entry)
    assert installed() == []
    assert not entry.folder.exists()


def test_a_damaged_record_is_one_sentence() -> None:
    add("ftcn", "a1" * 32, 1.0)
    (weights_folder("a1" * 32) / RECORD).write_text('{"name": 3}')
    with pytest.raises(ModelError, match=r"record\.json cannot be read .* add the weights again\.$"):
        installed()
