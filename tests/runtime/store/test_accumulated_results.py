from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import pytest
from msgspec.structs import replace

from deepscan.errors import UsageError
from deepscan.results import COLUMNS
from deepscan.runtime.store.journal import line_of
from deepscan.runtime.store.result_files import plan_without_writing
from deepscan.runtime.store.writers import BOM, CSV_HEADER
from tests.runtime.result_rows import LITE, OTHER, files_of, names_in, records_in, row, rows_in, scanned, write


def test_results_of_other_inputs_and_detectors_stay(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"), scanned(1, "b"))
    write(out, scanned(0, "c"))
    assert names_in(out) == ["a", "b", "c"]
    with files_of(out, ["b"], detectors=[OTHER]) as files:
        files.add(scanned(0, "b", OTHER))
        files.commit()
    cells = [(row[0], row[COLUMNS.index("model")]) for row in rows_in(out)[1:]]
    assert cells == [("a", "lite"), ("b", "lite"), ("c", "lite"), ("b", "other")]


def test_a_row_is_replaced_by_a_newer_result_of_its_input_and_detector(tmp_path: Path) -> None:
    out, other_settings = tmp_path / "r.csv", replace(LITE, settings_sha256="other")
    write(out, scanned(0, "a"), scanned(1, "b"))
    with files_of(out, ["./b"], detectors=[other_settings]) as files:
        assert files.done == set()
        assert files.commit() == out
        assert names_in(out) == ["a", "b"]  # until it is scanned
        files.add(scanned(0, "./b", other_settings))
        files.commit()
    assert [(row[0], row[-2]) for row in rows_in(out)[1:]] == [("a", "cd"), ("./b", "other")]
    with files_of(out, ["b"], contents=["fast:1:b"]) as files:  # known, but not what the row shows
        assert files.done == {0}
        assert [result.settings_sha256 for result in files.results_done()] == ["cd"]
        files.commit()
    assert [(row[0], row[-2]) for row in rows_in(out)[1:]] == [("a", "cd"), ("b", "cd")]
    assert len(records_in(tmp_path / "r.jsonl")) == 4


def test_processed_files_that_were_moved_away_keep_their_rows(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    inbox = [f"in/{index}.mp4" for index in range(10)]
    write(out, *(scanned(index, path) for index, path in enumerate(inbox)))
    with files_of(out, [*inbox[8:], "in/new.mp4"]) as files:
        assert files.done == {0, 1}
        files.add(scanned(2, "in/new.mp4"))
        files.commit()
    assert names_in(out) == [*inbox, "in/new.mp4"]


def test_pruning_leaves_other_rows_out_of_the_csv_and_in_the_journal(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"), scanned(1, "b"), scanned(2, "c"))
    assert plan_without_writing(out, inputs=["b"], contents=["fast:1:b"], detectors=[LITE])[1] == 2
    with files_of(out, ["b"], prune=True) as files:
        (note,) = files.notes
        assert note.startswith(f"--prune leaves 2 rows of other inputs or detectors out of {out}; they stay in ")
        files.commit()
    assert names_in(out) == ["b"]
    assert len(records_in(tmp_path / "r.jsonl")) == 3
    with files_of(out, ["a", "b", "c"], prune=True) as files:
        assert files.notes == []
    with files_of(out, ["c"]) as files:
        files.commit()
    assert names_in(out) == ["a", "b", "c"]


def test_a_path_that_cannot_be_reached_is_tried_again_and_says_nothing_about_duplicates(tmp_path: Path) -> None:
    out, names = tmp_path / "r.csv", ["a", "a2", "a3", "b"]
    contents = ["A", "A", "A", "B"]
    with files_of(out, names, contents=contents) as files:
        assert files.done == {1, 2}
        gone = row(0, path="a", status="unreadable", reason="moved", content=None)
        assert files.add(gone) == [gone]
        assert (files.take_up(), files.take_up()) == ([1], [])
        scored = scanned(1, "a2", content="A")
        assert files.add(scored) == [scored, replace(scored, index=2, row=2, path="a3")]
        assert files.take_up() == []
        files.commit()
    assert [cells[:2] for cells in rows_in(out)[1:]] == [["a", "unreadable"], ["a2", "scored"], ["a3", "scored"]]
    assert [record["content"] for record in records_in(tmp_path / "r.jsonl")] == [None, "A", "A"]
    with files_of(out, ["done/a", "a2", "a3", "b"], contents=contents) as files:
        assert files.done == {0, 1, 2}


def test_what_was_read_counts_and_not_what_was_planned(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    with files_of(out, ["grows", "copy"], contents=["old", "old"]) as files:
        assert files.done == {1}
        grown = scanned(0, "grows", content="new")
        assert files.add(grown) == [grown]
        assert files.take_up() == [1]
        files.add(scanned(1, "copy", content="old"))
    with files_of(out, ["grows", "copy", "older"], contents=["new", "old", "old"]) as files:
        assert [result.score for result in files.results_done()] == [0.5, 0.333333, 0.333333]


def test_many_rows_of_earlier_runs_take_little_memory(tmp_path: Path) -> None:
    count = 5_000
    (tmp_path / "r.jsonl").write_bytes(
        b"".join(line_of(scanned(index, f"{index}.mp4", details=(), content="c")) for index in range(count))
    )
    with files_of(tmp_path / "r.csv", ["new"]) as files:
        tracemalloc.start()
        files.add(scanned(0, "new"))
        assert files.commit() is not None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert sys.getsizeof(files._others.offsets) + sys.getsizeof(files._others.heads) < 20 * count
    assert len(names_in(tmp_path / "r.csv")) == count + 1


def test_a_csv_whose_journal_is_gone_is_kept(tmp_path: Path) -> None:
    out, old = tmp_path / "r.csv", tmp_path / "r.old.csv"
    write(out, scanned(0, "a"))
    before = out.read_bytes()
    (tmp_path / "r.jsonl").unlink()
    old.write_text("mine")
    with pytest.raises(UsageError, match=r"r\.old\.csv exists and was not written by deepscan"):
        files_of(out, ["b"])
    old.unlink()
    (tmp_path / "r.jsonl").unlink(missing_ok=True)
    with files_of(out, ["b"]) as files:
        assert files.notes == [f"The earlier {out}, whose journal is gone, is kept as r.old.csv."]
        files.add(scanned(0, "b"))
        files.commit()
    assert (names_in(out), old.read_bytes()) == (["b"], before)
    with files_of(out, ["b"]) as files:
        assert files.notes == []


@pytest.mark.parametrize("written", [CSV_HEADER, BOM + CSV_HEADER, CSV_HEADER.replace("\n", "\r\n")])
def test_a_csv_without_rows_whose_journal_is_gone_is_not_worth_keeping(tmp_path: Path, written: str) -> None:
    out = tmp_path / "r.csv"
    out.write_bytes(written.encode("utf-8"))
    with files_of(out, ["b"]) as files:
        assert files.notes == []
    assert not (tmp_path / "r.old.csv").exists()


def test_a_failure_that_is_tried_in_every_run_has_one_record(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    over, gone = row(0, status="over_limit", reason="long"), row(1, status="unreadable", content=None, reason="gone")
    for seconds in (1.0, 2.0, 3.0):
        with files_of(out, ["0.mp4", "1.mp4"], contents=["fast:1:0.mp4", None]) as files:
            assert files.done == set()
            for result in (over, gone):
                files.add(replace(result, elapsed_seconds=seconds))
            files.commit()
    assert [cells[1] for cells in rows_in(out)[1:]] == ["over_limit", "unreadable"]
    assert len(records_in(tmp_path / "r.jsonl")) == 2
    with files_of(out, ["0.mp4", "1.mp4"]) as files:
        files.add(replace(over, reason="longer"))
    assert len(records_in(tmp_path / "r.jsonl")) == 3
