"""An output format that another package adds, without a change of deepscan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.store.writers import WRITERS, Writer
from tests.cli.console import assert_one_line, deepscan
from tests.runtime.result_rows import files_of, row, scanned
from tests.seams.installed import install_plugin
from tests.seams.toy_writer import FIRST

BOTH = FIRST + b'[[row]]\npath = "a.mp4"\nscore = 0.5\n[[row]]\npath = "b.mp4"\nscore = 0.333333\n'


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the toy writer, and name an output of its format."""
    group, entry = "deepscan.writers", "toy = toy_writer:WRITER"
    install_plugin(tmp_path / "plugin", monkeypatch, module="toy_writer", group=group, entry=entry)
    return tmp_path / "rows.toy"


def test_a_format_of_another_package_is_written_whole_and_goes_on_where_it_ended(out: Path) -> None:
    with files_of(out, ["a.mp4", "b.mp4"]) as files:
        files.add(scanned(0, "a.mp4"))
        files.commit()
    assert (out.read_bytes(), out.with_suffix(".jsonl").read_bytes().count(b"\n")) == (BOTH[: out.stat().st_size], 1)
    with files_of(out, ["a.mp4", "b.mp4"]) as files:
        assert files.plan.to_scan == (1,)
        files.add(scanned(1, "b.mp4"))
        files.commit()
    assert out.read_bytes() == BOTH
    assert sorted(path.name for path in out.parent.iterdir()) == ["plugin", "rows.jsonl", "rows.toy"]


def test_a_writer_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
        yield FIRST
        for one in rows:
            yield f"{one['path']} {1 / one['faces']}\n".encode("ascii")

    monkeypatch.setitem(WRITERS, ".faces", Writer(encode, lambda start: start.startswith(FIRST)))
    out = tmp_path / "rows.faces"
    with files_of(out, ["a.mp4", "b.mp4"]) as files:
        files.add(row(0, path="a.mp4", faces=1))
        files.commit()
        files.add(row(1, path="b.mp4", faces=0))
        with pytest.raises(OutputError, match=r"ZeroDivisionError.*kept in .*rows\.jsonl\.$"):
            files.commit()
    assert out.read_bytes() == FIRST + b"a.mp4 1.0\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.faces", "rows.jsonl"]


def test_a_scan_writes_it_and_show_finds_the_rows_beside_it(out: Path) -> None:
    empty = out.with_name("empty.mp4")
    empty.touch()
    for _ in range(2):
        ran = deepscan("scan", empty, "--out", out)
        assert ran.code == 1, ran.err
        assert out.read_text() == f'{FIRST.decode()}[[row]]\npath = "{empty}"\nscore = None\n'
    assert "empty.mp4" in deepscan("show", out).text


def test_a_byte_order_mark_is_refused_before_the_inputs_are_read(out: Path) -> None:
    no_list = out.with_name("missing.txt")  # which would be refused, too, if it were read
    for more in ((), ("--dry-run",)):
        ran = deepscan("scan", "--from-file", no_list, "--out", out, "--csv-bom", *more)
        assert_one_line(ran, 2)
        assert "--csv-bom belongs to a CSV" in ran.err


def test_a_file_of_another_program_is_not_replaced(out: Path) -> None:
    out.write_text("mine\n")
    with pytest.raises(UsageError, match="was not written by deepscan"):
        files_of(out, ["a.mp4"])
    assert out.read_text() == "mine\n"


def test_a_suffix_of_no_format_names_those_that_are_installed(out: Path) -> None:
    with pytest.raises(UsageError, match=r"end in \.csv, or in \.toy\.$"):
        files_of(out.with_suffix(".xlsx"), ["a.mp4"])


@pytest.mark.parametrize("entry", ["toy = nowhere:WRITER", "toy = toy_writer:FIRST"], ids=["missing", "another type"])
def test_a_package_that_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    install_plugin(tmp_path, monkeypatch, module="toy_writer", group="deepscan.writers", entry=entry)
    with pytest.raises(
        UsageError, match=r"\.toy that toy_writer adds cannot be used .*: update or remove that package"
    ):
        files_of(tmp_path / "rows.toy", ["a.mp4"])
