from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from deepscan import FrameScore, MachineError, UsageError, VideoResult, read_frames, read_results
from deepscan.results import COLUMNS, FRAME_COLUMNS
from deepscan.runtime.store.frame_files import _csv, _parquet
from deepscan.runtime.store.journal import line_of
from deepscan.runtime.store.writers import BOM, CSV, CSV_HEADER, csv_line, jsonl_line
from tests.runtime.result_rows import PEAK, TRACK, row

SCORED: dict[str, Any] = {
    "status": "scored",
    "score": 0.5,
    "label": "real",
    "faces": 2,
    "duration_seconds": 1.5,
    "width": 640,
    "peak": structs.replace(PEAK, start_seconds=0.5, end_seconds=1.25, score=0.75, clips=3),
    "reason": "it is HDR, and more",
}


def csv_of(path: Path, rows: list[VideoResult]) -> Path:
    path.write_bytes(b"".join(CSV.encode(result.to_dict() for result in rows)))
    return path


def journal_of(path: Path, rows: list[VideoResult]) -> Path:
    path.write_bytes(b"".join(map(line_of, rows)))
    return path


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.sampled_from(
    ["=1", "'", 'a,"b', "a\nb.mp4", "\udcff.mp4", "1", "\r"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES.filter(lambda name: "\0" not in name), max_size=4, unique=True), bom=st.booleans())
def test_a_csv_gives_back_the_rows_that_it_was_made_of(tmp_path: Path, names: list[str], bom: bool) -> None:
    rows = [row(number, path=name, **(SCORED if number % 2 else {})) for number, name in enumerate(names)]
    path = csv_of(tmp_path / "r.csv", rows)
    if bom:
        path.write_bytes(BOM.encode() + path.read_bytes())
    found = read_results(path)
    assert len(found) == len(rows)
    for one, other in zip(found, rows, strict=True):
        peak = None if other.peak is None else structs.replace(other.peak, clips=0)
        assert one == structs.replace(other, index=0, row=0, content=None, peak=peak)


def test_a_journal_gives_the_newest_record_of_each_row_with_its_tracks(tmp_path: Path) -> None:
    old, other = row(0, **SCORED, details=(TRACK,)), row(1)
    new = structs.replace(old, score=0.875)
    both = structs.replace(old, model="other")
    found = read_results(journal_of(tmp_path / "r.jsonl", [old, other, both, new]))
    assert [(each.path, each.model, each.score) for each in found] == [
        ("0.mp4", "lite", 0.875),
        ("1.mp4", "lite", None),
        ("0.mp4", "other", 0.5),
    ]
    assert [len(each.details) for each in found] == [1, 0, 1]
    assert next(iter(found)).content == "fast:1:0.mp4"
    printed = tmp_path / "printed.jsonl"
    printed.write_text("".join(jsonl_line(each.to_dict()) for each in (old, other)))
    assert [each.score for each in read_results(printed)] == [0.5, None]


def test_thousands_of_rows_are_read_and_their_tracks_are_not_all_kept(tmp_path: Path) -> None:
    rows = [row(number, **SCORED, details=(TRACK,) * 3) for number in range(3000)]
    found = read_results(journal_of(tmp_path / "r.jsonl", rows))
    assert len(found) == sum(1 for _ in found) == 3000


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"no_face", b"no_fact"), lines[2]], 2),
        (lambda lines: [lines[0], b"\n", b"{}\n", lines[2]], 3),
        (lambda lines: [*lines[:2], lines[2][:-9]], 3),
        (lambda lines: [b"[" * 9000 + b"\n", *lines], 1),
        (lambda lines: [lines[0], b"\xff\n"], 2),
    ],
)
def test_a_damaged_line_of_a_journal_is_named(damage: Any, line: int, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b"".join(damage([line_of(row(number)) for number in range(3)])))
    with pytest.raises(UsageError, match=rf"r.jsonl, line {line}, is damaged or no row: give a .csv or .jsonl"):
        read_results(tmp_path / "r.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CSV_HEADER + csv_line(row(0).to_dict()) + "a,b\n", "line 3, is damaged or no row"),
        (CSV_HEADER + csv_line(row(0).to_dict()).replace("no_face", "fine"), "line 2, is damaged or no row"),
        ("path,model,score,mine\n", "does not begin with the columns of its kind"),
        ("", "does not begin with the columns of its kind"),
        (CSV_HEADER + '"a', r"is no CSV \(unexpected end of data\)"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UsageError, match=f"r.csv.*{said}"):
        read_results(tmp_path / "r.csv")
    with pytest.raises(UsageError, match=r"none.csv cannot be read \(No such file or directory\)"):
        read_results(tmp_path / "none.csv")


def test_results_become_tables_of_pandas_and_polars(tmp_path: Path) -> None:
    rows = [row(0), row(1, path="\udcff.mp4", **SCORED)]
    for path in (csv_of(tmp_path / "r.csv", rows), journal_of(tmp_path / "r.jsonl", rows)):
        found = read_results(path)
        for table in (found.to_pandas(), found.to_polars()):
            assert tuple(table.columns) == COLUMNS
            assert list(table["path"]) == ["0.mp4", "\\udcff.mp4"]
            assert list(table["status"]) == ["no_face", "scored"]
            assert list(table["score"])[1] == 0.5
            assert list(table["peak_end_seconds"])[1] == 1.25


def test_a_missing_package_is_said_with_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_results(csv_of(tmp_path / "r.csv", [row(0)]))
    for package in ("pandas", "polars", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError, match=r"A table of pandas needs the package: run `.*install pandas`"):
        found.to_pandas()
    with pytest.raises(MachineError, match=r"A table of polars needs the package: run `.*install polars`"):
        found.to_polars()
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(MachineError, match=r"f.parquet needs the package pyarrow: run `.*frames.*`, or use a .csv"):
        read_frames(tmp_path / "f.parquet")


def values(number: int) -> tuple[Any, ...]:
    landmarks = [float("nan") if number else 2.5] * 10
    return (
        "=\udcff.mp4",
        "lite",
        3,
        number / 4,
        number,
        bool(number),
        -1.5,
        2,
        3,
        4,
        *landmarks,
        0.0,
        9.5,
        1,
        -2.25,
        0.25,
    )


@pytest.mark.parametrize(("name", "encode"), [("f.csv", _csv), ("f.parquet", _parquet)])
def test_frames_are_typed_rows_and_tables(name: str, encode: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"".join(encode(map(values, range(5)))))
    frames = read_frames(path)
    first, *_, last = list(frames)
    assert len(list(frames)) == 5
    assert isinstance(first, FrameScore)
    assert first.path == ("=\udcff.mp4" if name == "f.csv" else "=\\udcff.mp4")
    assert (first.found, first.nose_x, first.x, first.logit) == (False, 2.5, -1.5, -2.25)
    assert (last.found, last.nose_x, last.pts_seconds, last.track, last.end_seconds) == (True, None, 1.0, 3, 9.5)
    for table in (frames.to_pandas(), frames.to_polars()):
        assert tuple(table.columns) == FRAME_COLUMNS
        assert list(table["path"]) == ["=\\udcff.mp4"] * 5
        assert list(table["frame"]) == [0, 1, 2, 3, 4]
        assert table["score"].mean() == 0.25


def test_other_files_are_no_frames(tmp_path: Path) -> None:
    for name in ("f.csv", "f.parquet"):
        (tmp_path / name).write_text("path,model,score\n1,2,3\n")
        with pytest.raises(UsageError, match="give a per-frame file that a scan has written"):
            read_frames(tmp_path / name)
        with pytest.raises(UsageError, match=r"cannot be read \(No such file or directory\)"):
            read_frames(tmp_path / "none" / name)
