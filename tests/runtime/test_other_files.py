from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepscan.errors import UsageError
from deepscan.runtime.system.other_files import holds, json_with, refuse_other_file


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
