from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from deepscan.errors import OutputError
from deepscan.results import BESIDE_COLUMNS, COLUMNS
from deepscan.runtime.store import result_files
from deepscan.runtime.store.result_files import plan_without_writing
from tests.runtime.result_rows import (
    LITE,
    OTHER,
    PEAK,
    TRACK,
    files_of,
    names_in,
    of_both,
    paths,
    records_in,
    row,
    rows_in,
    scanned,
    write,
)

ROOT = Path(__file__).parents[3]


def test_rows_are_in_the_order_of_the_inputs_whatever_finishes_first(tmp_path: Path) -> None:
    order = [7, 2, 0, 9, 4, 1, 8, 3, 6, 5]
    write(tmp_path / "r.csv", *(row(index) for index in order))
    assert names_in(tmp_path / "r.csv") == paths(10)
    assert [record["path"] for record in records_in(tmp_path / "r.jsonl")] == [f"{index}.mp4" for index in order]


def test_the_rows_of_an_input_are_in_the_order_of_the_detectors(tmp_path: Path) -> None:
    with files_of(tmp_path / "r.csv", paths(3), detectors=[LITE, OTHER]) as files:
        for index in (2, 0, 1):
            files.add(*of_both(index, f"{index}.mp4"))
        files.commit()
    expected = [(path, model) for path in paths(3) for model in ("lite", "other")]
    assert [(cell[0], cell[COLUMNS.index("model")]) for cell in rows_in(tmp_path / "r.csv")[1:]] == expected
    by_path = sorted(records_in(tmp_path / "r.jsonl"), key=lambda record: str(record["path"]))
    assert [(record["path"], record["model"]) for record in by_path] == expected


def test_the_jsonl_holds_exact_paths_tracks_and_timelines(tmp_path: Path) -> None:
    path = os.fsdecode(b'=a,"\n\r\xff.mp4')
    scored = row(path=path, status="scored", score=0.7654321, label="uncertain", peak=PEAK, details=(TRACK,))
    write(tmp_path / "r.csv", scored, row(1))
    first, second = records_in(tmp_path / "r.jsonl")
    assert list(first) == [*COLUMNS, *BESIDE_COLUMNS, "content", "peak_clips", "track_details", "check"]
    assert first["path"] == path
    segment = {"start_seconds": 0.123, "end_seconds": 1.988, "score": 0.912346, "clips": 7}
    numbers = {"track": 3, "start_seconds": 0.0, "end_seconds": 2.0, "score": 0.765432, "clips": 9}
    outcome = {"sightings": 4, "pooled": False, "decided": True}
    assert first["track_details"] == [{**numbers, "timeline": [segment, segment], **outcome}]
    assert [first[f"peak_{name}"] for name in ("start_seconds", "end_seconds", "score")] == [0.123, 1.988, 0.912346]
    assert (second["score"], second["peak_score"], second["track_details"]) == (None, None, [])


def test_a_finished_input_is_in_the_journal_at_once_and_nothing_else_is_left_at_the_end(tmp_path: Path) -> None:
    with files_of(tmp_path / "r.csv", paths(2), detectors=[LITE, OTHER]) as files:
        files.add(*of_both(1, "1.mp4"))
        assert [record["model"] for record in records_in(tmp_path / "r.jsonl")] == ["lite", "other"]
        assert not (tmp_path / "r.csv").exists()
        files.commit()
        assert names_in(tmp_path / "r.csv") == ["1.mp4", "1.mp4"]
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.jsonl"]


def test_during_a_scan_the_csv_has_what_is_finished_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.csv"
    monkeypatch.setattr(result_files, "RENDER_SECONDS", 0.0)
    monkeypatch.setattr(result_files, "RENDER_SHARE", 1000.0)
    with files_of(out, paths(4)) as files:
        for index, expected in [(2, ["2.mp4"]), (0, ["0.mp4", "2.mp4"]), (3, ["0.mp4", "2.mp4", "3.mp4"])]:
            files.add(scanned(index, f"{index}.mp4"))
            assert names_in(out) == expected
        monkeypatch.setattr(result_files, "RENDER_SHARE", 1e-9)  # as if writing it had taken days
        files._render()
        files.add(scanned(1, "1.mp4"))
        assert names_in(out) == ["0.mp4", "2.mp4", "3.mp4"]
        assert files.commit() == out
        assert names_in(out) == paths(4)


def test_the_csv_is_not_written_more_often_than_stated(tmp_path: Path) -> None:
    before = time.monotonic()
    with files_of(tmp_path / "r.csv", paths(2)) as files:
        assert before + 30 <= files._next_rendering <= time.monotonic() + 30
        files.add(scanned(0, "0.mp4"))
        assert not (tmp_path / "r.csv").exists()


@pytest.fixture
def undisturbed(tmp_path: Path) -> tuple[bytes, list[bytes]]:
    """The CSV and the sorted lines of the journal of a scan of ten inputs that ran to its end."""
    write(tmp_path / "whole" / "r.csv", *(scanned(index, f"{index}.mp4") for index in range(10)))
    return both(tmp_path / "whole" / "r.csv")


def both(out: Path) -> tuple[bytes, list[bytes]]:
    """Return a CSV, and the lines of the journal beside it, whose order is that in which files finished."""
    return out.read_bytes(), sorted(out.with_suffix(".jsonl").read_bytes().splitlines(keepends=True))


@pytest.mark.parametrize("committed", [True, False])
def test_a_scan_that_ended_early_goes_on_and_its_files_are_those_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: tuple[bytes, list[bytes]], committed: bool
) -> None:
    out = tmp_path / "r.csv"
    for part in ([8, 1, 5], [], [0, 9], [7, 6, 4, 3, 2]):
        with files_of(out, paths(10)) as files:
            assert not files.done & set(part)
            for index in part:
                files.add(scanned(index, f"{index}.mp4"))
            if committed or part[-1:] == [2]:
                files.commit()
    assert both(out) == undisturbed
    with files_of(out, paths(10)) as files:
        assert files.done == set(range(10))
        done = list(files.results_done())
        assert files.commit() == out
    assert both(out) == undisturbed
    again = [replace(scanned(index, f"{index}.mp4"), details=()) for index in range(10)]
    assert [result.to_dict() for result in done] == [result.to_dict() for result in again]
    assert [(result.index, result.row) for result in done] == [(index, index) for index in range(10)]


def test_a_moved_file_keeps_its_result_under_its_new_name_and_place(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"), scanned(1, "b"))
    contents = ["fast:1:b", "fast:1:new", "fast:1:a"]
    with files_of(out, ["moved/b", "new", "=a"], contents=contents) as files:
        assert files.done == {0, 2}
        assert [(result.index, result.row, result.path) for result in files.results_done()] == [
            (0, 0, "moved/b"),
            (2, 2, "=a"),
        ]
        assert files.add(scanned(1, "new")) == [scanned(1, "new")]
        files.commit()
    expected = [scanned(0, "a"), scanned(1, "b"), scanned(1, "b"), scanned(0, "a"), scanned(1, "new")]
    assert names_in(out) == ["a", "b", "moved/b", "new", "'=a"]
    records = records_in(tmp_path / "r.jsonl")
    assert [record["path"] for record in records] == ["a", "b", "moved/b", "=a", "new"]
    assert [record["score"] for record in records] == [result.to_dict()["score"] for result in expected]
    assert [record["content"] for record in records][2:] == ["fast:1:b", "fast:1:a", "fast:1:new"]
    with files_of(out, ["moved/b", "new", "=a"], contents=contents) as files:  # the new lines have good checksums
        assert (files.done, files.notes) == (frozenset({0, 1, 2}), [])
    assert records_in(tmp_path / "r.jsonl") == records  # and are written once


def test_files_that_hold_the_same_are_scanned_once_and_reported_each(tmp_path: Path) -> None:
    out, inputs, contents = tmp_path / "r.csv", ["a", "b", "a2", "a3"], ["A", "B", "A", "A"]
    with files_of(out, inputs, contents=contents, detectors=[LITE, OTHER]) as files:
        assert files.done == {2, 3}
        both = of_both(0, "a", content="A")
        copies = [
            replace(result, index=index, row=index * 2 + number, path=inputs[index])
            for index in (2, 3)
            for number, result in enumerate(both)
        ]
        assert files.add(*both) == [*both, *copies]
        files.commit()
    assert names_in(out) == ["a", "a", "a2", "a2", "a3", "a3"]
    with files_of(out, inputs, contents=contents, detectors=[LITE, OTHER]) as files:
        assert files.done == {0, 2, 3}
        files.add(*of_both(1, "b", content="B"))
        files.commit()
    assert names_in(out) == ["a", "a", "b", "b", "a2", "a2", "a3", "a3"]


def test_failures_are_tried_again_if_asked_and_the_new_result_counts(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"), row(1, path="b", status="crashed", reason="signal 11"))
    for retry_failed, done in [(False, {0, 1}), (True, {0})]:
        with files_of(out, ["a", "b"], retry_failed=retry_failed) as files:
            assert files.done == done
    with files_of(out, ["a", "b"], retry_failed=True) as files:
        files.add(scanned(1, "b"))  # and then the process ends without a commit
    assert len(records_in(tmp_path / "r.jsonl")) == 3
    with files_of(out, ["a", "b"], retry_failed=True) as files:
        assert files.done == {0, 1}
        files.commit()
    assert [record["status"] for record in records_in(tmp_path / "r.jsonl")] == ["scored", "crashed", "scored"]
    assert [cells[1] for cells in rows_in(out)[1:]] == ["scored", "scored"]


def test_a_changed_file_other_weights_and_files_without_content_are_scanned(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"), scanned(1, "b"))
    with files_of(out, ["a", "b"], contents=["fast:1:changed", None]) as files:
        assert files.done == set()
    with files_of(out, ["a", "b"], detectors=[replace(LITE, weights_sha256="x")]) as files:
        assert files.done == set()
    with files_of(out, ["a", "b"], detectors=[LITE, OTHER]) as files:
        assert files.done == set()


def test_a_fresh_scan_forgets_and_keeps_the_journal_under_another_name(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"))
    before = (tmp_path / "r.jsonl").read_bytes(), out.read_bytes()
    with files_of(out, ["a"], fresh=True) as files:
        assert files.done == set()
        assert files.notes == [f"The earlier {tmp_path / 'r.jsonl'} is kept as r.old.jsonl and not continued."]
        assert files.commit() is None  # nothing is known yet: the earlier CSV stays
    assert ((tmp_path / "r.old.jsonl").read_bytes(), out.read_bytes()) == before
    with files_of(out, ["a"]) as files:
        assert files.done == set()


def test_damage_costs_the_files_it_was_about_and_is_reported(
    tmp_path: Path, undisturbed: tuple[bytes, list[bytes]]
) -> None:
    lines = list(undisturbed[1])
    lines[3] = lines[3].replace(b'"score": 0.2', b'"score": 0.3', 1)
    (tmp_path / "r.jsonl").write_bytes(b"".join(lines) + b'{"path": "torn')
    with files_of(tmp_path / "r.csv", paths(10)) as files:
        assert files.done == set(range(10)) - {3}
        (note,) = files.notes
        assert note.startswith(f"{tmp_path / 'r.jsonl'} has damaged lines (1), which are passed over")
        files.add(scanned(3, "3.mp4"))
        files.commit()
    assert (tmp_path / "r.csv").read_bytes() == undisturbed[0]
    assert (tmp_path / "r.jsonl").read_bytes() == b"".join([*lines, undisturbed[1][3]])


def test_a_look_at_what_would_be_scanned_touches_nothing(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"))
    with open(tmp_path / "r.jsonl", "ab") as file:
        file.write(b"torn")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with files_of(tmp_path / "other.csv", ["a"]):  # nor does it need the lock
        for fresh, expected in [(False, (1,)), (True, (0, 1))]:
            plan, _ = plan_without_writing(
                out, inputs=["a", "b"], contents=["fast:1:a", "fast:1:b"], detectors=[LITE], fresh=fresh
            )
            assert plan.to_scan == expected
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with files_of(out, ["a", "b"]):
        plan_without_writing(out, inputs=["a"], contents=["fast:1:a"], detectors=[LITE])
    with pytest.raises(OutputError, match="Not a directory"):
        plan_without_writing(tmp_path / "r.csv" / "r.csv", inputs=["a"], contents=[None], detectors=[LITE])


def test_a_commit_before_the_end_flushes_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    flush = os.fsync

    def noting(file: int) -> None:
        flush(file)
        flushed.append(os.fstat(file).st_ino)

    monkeypatch.setattr(os, "fsync", noting)
    with files_of(tmp_path / "r.csv", paths(2)) as files:
        files.add(scanned(0, "0.mp4"))
        flushed.clear()
        files.commit()
        assert (tmp_path / "r.jsonl").stat().st_ino in flushed


# Two detectors; of four inputs in a row the last holds the same as the first, and some have no content id.
SCAN = """
import sys
from pathlib import Path
from deepscan.results import COLUMNS
from deepscan.runtime.store import result_files
from tests.runtime.result_rows import LITE, OTHER, files_of, of_both, paths
result_files.RENDER_SECONDS = 0.0
result_files.RENDER_SHARE = 1000.0
names, detectors = paths(80), [LITE, OTHER]
contents = [None if i % 20 == 6 else f"fast:1:{i - 3 if i % 4 == 3 else i}" for i in range(80)]
with files_of(Path(sys.argv[1]), names, contents=contents, detectors=detectors) as files:
    for index in sorted(set(range(80)) - files.done, key=lambda index: index * 37 % 80):
        print(index, flush=True)
        files.add(*of_both(index, names[index], content=contents[index]))
    files.commit()
print("end", flush=True)
"""


def test_a_scan_that_is_killed_at_any_moment_and_continued_ends_as_if_undisturbed(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    subprocess.run([sys.executable, "-c", SCAN, str(tmp_path / "whole" / "r.csv")], check=True, cwd=ROOT)
    out = tmp_path / "r.csv"
    for stop_after in [0, 1, 7, 12, 12, 13, None]:
        command = [sys.executable, "-c", SCAN, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
            assert child.stdout is not None
            said = child.stdout if stop_after is None else (child.stdout.readline() for _ in range(stop_after))
            told = list(said)
            if stop_after is not None:
                child.send_signal(signal.SIGKILL)
        if out.exists():  # whole at any moment
            assert all(len(cells) == len(COLUMNS) for cells in rows_in(out))
    assert told[-1] == "end\n"
    assert len(told) < 40  # the rest was done before
    assert len(names_in(out)) == 160
    csv, lines = both(out)
    assert csv == (tmp_path / "whole" / "r.csv").read_bytes()
    assert set(lines) == set(both(tmp_path / "whole" / "r.csv")[1])  # those without a content id several times
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.jsonl", "whole"]
