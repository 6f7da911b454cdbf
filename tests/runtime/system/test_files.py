from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.system.files import holds, json_with, refuse_other_file, refuse_unwritable


def test_a_new_file_an_empty_one_and_one_of_the_kind_are_fine_and_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "log").write_bytes(b"BEGIN and more")
    for name in ("new", "empty", "log"):
        refuse_unwritable(tmp_path / name, begins=b"BEGIN", kind="log")
    assert sorted(os.listdir(tmp_path)) == ["empty", "log"]
    assert (tmp_path / "log").read_bytes() == b"BEGIN and more"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("other", "exists and is not a log: name another file, or delete it"),
        ("short", "exists and is not a log"),
        ("pipe", "is not a regular file: name a file for the log"),
        (".", "is not a regular file"),
        ("none/log", r"cannot be written \(No such file or directory\): name a file elsewhere"),
        ("other/log", r"cannot be written \(Not a directory\)"),
        ("x" * 300, r"cannot be written \(File name too long\)"),
        ("new/", r"cannot be written \("),
        ("a\0b", r"cannot be written \("),
    ],
)
def test_what_prevents_a_file_is_said_without_a_trace(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "other").write_bytes(b"something")
    (tmp_path / "short").write_bytes(b"BEG")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError, match=says):
        refuse_unwritable(f"{tmp_path}/{name}", begins=b"BEGIN", kind="log")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_and_a_file_without_permission_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log").touch(mode=0o400)
    tmp_path.chmod(0o500)
    try:
        for name in ("new", "log"):
            with pytest.raises(OutputError, match="Permission denied"):
                refuse_unwritable(tmp_path / name, begins=b"BEGIN", kind="log")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("data", [b"", b'{"a": 1, "b": {}}', b'{"b": 1, "a": null, "c": []}\n'])
def test_what_deepscan_has_written_may_be_replaced(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    refuse_other_file(tmp_path / "r.json", json_with(["a", "b"]), advice="choose")
    refuse_other_file(tmp_path / "missing" / "r.json", json_with(["a", "b"]), advice="choose")
    refuse_other_file(tmp_path / "r.json", holds(b'"a"') if data else holds(b"x"), advice="choose")


@pytest.mark.parametrize("data", [b" ", b"[]", b'{"a": 1}', b'{"a": 1, "b": ', b"[" * 100_000, b"\xff\xd8\xff"])
def test_what_somebody_else_has_written_stays(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    for is_ours in (json_with(["a", "b"]), holds(b"deepscan")):
        with pytest.raises(UsageError, match=r"r\.json exists and was not written by deepscan: choose\."):
            refuse_other_file(tmp_path / "r.json", is_ours, advice="choose")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_what_cannot_be_read_stays(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"x")
    (tmp_path / "r.json").chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        refuse_other_file(tmp_path / "r.json", holds(b"x"), advice="choose")
