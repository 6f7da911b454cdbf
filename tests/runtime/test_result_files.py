from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscan.errors import OutputError, UsageError
from deepscan.runtime import result_files
from deepscan.runtime.output_lock import OutputLock, lock_path
from deepscan.runtime.result_files import (
    COLUMNS,
    CSV_HEADER,
    OrderedRecords,
    csv_line,
    plan_without_writing,
    record_of,
)
from deepscan.runtime.result_records import result_of
from deepscan.runtime.results import VideoResult
from tests.runtime.result_rows import LITE, OTHER, PEAK, TRACK, files_of, paths, row, scanned

ROOT = Path(__file__).parents[2]
# As in the design, written out: other programs rely on the names and their order.
DESIGNED = (
    "path,status,reason,score,label,model,faces,tracks,clips,frames,duration_seconds,width,height,codec,"
    "peak_start_seconds,peak_end_seconds,peak_score,backend,precision,weights_sha256,settings_sha256,elapsed_seconds"
)
# What spreadsheets execute.
FORMULA_STARTS = "=+-@\t\r"

# Names as the system gives them, undecodable bytes included, and names that begin like a formula.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary().map(os.fsdecode),
    st.tuples(st.sampled_from(FORMULA_STARTS + "'\n"), st.text("=+'\"\r\n,; aé")).map("".join),
)


def cells(result: VideoResult) -> dict[str, str]:
    (read,) = csv.reader(io.StringIO(csv_line(record_of(result)), newline=""))
    return dict(zip(COLUMNS, read, strict=True))


def write(out: Path, *results: VideoResult) -> list[list[str]]:
    inputs = [result.path for result in sorted(results, key=lambda result: result.row)]
    with files_of(out, inputs) as files:
        for result in results:
            files.add(result)
        files.commit()
    return rows_in(out)


def rows_in(out: Path) -> list[list[str]]:
    with open(out, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def names_in(out: Path) -> list[str]:
    return [cells[0] for cells in rows_in(out)[1:]]


def records_in(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_the_columns_are_those_of_the_design(tmp_path: Path) -> None:
    header, line = write(tmp_path / "r.csv", row())
    assert header == DESIGNED.split(",")
    assert CSV_HEADER == DESIGNED + "\n"
    assert len(line) == len(header)


@settings(deadline=None)
@given(texts, texts)
def test_any_text_comes_back_once_an_added_apostrophe_is_taken_away(path: str, reason: str) -> None:
    read = cells(row(path=path, reason=reason))
    for text, cell in zip((path, reason), (read["path"], read["reason"]), strict=True):
        assert cell[:1] not in tuple(FORMULA_STARTS)
        assert (cell[1:] if cell.startswith("'") else cell) == text


@settings(deadline=None, max_examples=30)
@given(texts.filter(lambda text: "\0" not in text), texts)
def test_any_name_and_reason_survive_both_files(path: str, reason: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "r.csv"
        _, read = write(out, row(path=path, reason=reason))
        with files_of(out, [path]) as files:
            (again,) = files.results_done()
        assert (again.path, again.reason) == (path, reason)
    assert [cell[1:] if cell.startswith("'") else cell for cell in (read[0], read[2])] == [path, reason]


@pytest.mark.parametrize("start", list(FORMULA_STARTS + "'"))
def test_a_cell_that_a_spreadsheet_would_execute_becomes_text(start: str) -> None:
    assert cells(row(path=f"{start}1+1"))["path"] == f"'{start}1+1"


def test_numbers_are_not_taken_for_formulas() -> None:
    assert cells(row(duration_seconds=-1.5))["duration_seconds"] == "-1.5"


@given(st.permutations(range(8)))
def test_records_become_ready_in_order_each_once_and_as_soon_as_possible(order: list[int]) -> None:
    seen: list[int] = []
    with OrderedRecords() as records:
        for count, index in enumerate(order, 1):
            records.add(index, {"index": index})
            seen += [record["index"] for record in records.ready()]
            waiting = next(number for number in range(9) if number not in order[:count])
            assert seen == list(range(waiting))


floats = st.floats(0, 1)
results = st.builds(
    scanned, st.integers(0, 9), texts, st.sampled_from([LITE, OTHER]), number=st.integers(0, 1), of=st.just(2)
)


@given(results, floats, st.floats(0, 1e6), texts)
def test_a_record_gives_the_result_back_as_it_is_rounded(
    result: VideoResult, score: float, seconds: float, reason: str
) -> None:
    result = replace(result, score=score, duration_seconds=seconds, reason=reason)
    record = json.loads(json.dumps(record_of(result) | {"peak_clips": PEAK.clips}))
    again = result_of(record, index=result.index, row=result.row, path=result.path)
    assert record_of(again) == record_of(result)
    assert again.peak is not None
    assert (again.peak.clips, again.index, again.row, again.path) == (7, result.index, result.row, result.path)


@pytest.mark.parametrize(
    ("score", "cell"),
    [(1.23456789e-12, "1.23457e-12"), (0.000123456789, "0.000123457"), (0.5, "0.5"), (0.0, "0.0"), (1.0, "1.0")],
)
def test_probabilities_keep_six_digits_however_small(score: float, cell: str) -> None:
    assert cells(row(status="scored", score=score, label="real"))["score"] == cell


def test_what_does_not_apply_is_an_empty_cell_and_no_score_is_made_up() -> None:
    read = cells(row(status="unreadable", reason="The file is empty."))
    assert {name for name, cell in read.items() if cell == ""} == {
        *("score", "label", "duration_seconds", "width", "height", "codec"),
        *("peak_start_seconds", "peak_end_seconds", "peak_score"),
    }
    assert "0.5" not in read.values()


def test_rows_are_in_the_order_of_the_inputs_whatever_finishes_first(tmp_path: Path) -> None:
    order = [7, 2, 0, 9, 4, 1, 8, 3, 6, 5]
    write(tmp_path / "r.csv", *(row(index) for index in order))
    assert names_in(tmp_path / "r.csv") == paths(10)
    assert [record["path"] for record in records_in(tmp_path / "r.jsonl")] == paths(10)


def test_the_rows_of_an_input_are_in_the_order_of_the_detectors(tmp_path: Path) -> None:
    with files_of(tmp_path / "r.csv", paths(3), detectors=[LITE, OTHER]) as files:
        for number in (5, 0, 3, 1, 4, 2):
            key = (LITE, OTHER)[number % 2]
            files.add(scanned(number // 2, f"{number // 2}.mp4", key, number=number % 2, of=2))
        files.commit()
    expected = [(path, model) for path in paths(3) for model in ("lite", "other")]
    assert [(cell[0], cell[COLUMNS.index("model")]) for cell in rows_in(tmp_path / "r.csv")[1:]] == expected
    assert [(record["path"], record["model"]) for record in records_in(tmp_path / "r.jsonl")] == expected


def test_the_jsonl_holds_exact_paths_tracks_and_timelines(tmp_path: Path) -> None:
    path = os.fsdecode(b'=a,"\n\r\xff.mp4')
    scored = row(path=path, status="scored", score=0.7654321, label="uncertain", peak=PEAK, details=(TRACK,))
    write(tmp_path / "r.csv", scored, row(1))
    first, second = records_in(tmp_path / "r.jsonl")
    assert list(first) == [*DESIGNED.split(","), "content", "peak_clips", "track_details", "check"]
    assert first["path"] == path
    segment = {"start_seconds": 0.123, "end_seconds": 1.988, "score": 0.912346, "clips": 7}
    numbers = {"track": 3, "start_seconds": 0.0, "end_seconds": 2.0, "score": 0.765432, "clips": 9}
    assert first["track_details"] == [{**numbers, "timeline": [segment, segment]}]
    assert [first[f"peak_{name}"] for name in ("start_seconds", "end_seconds", "score")] == [0.123, 1.988, 0.912346]
    assert (second["score"], second["peak_score"], second["track_details"]) == (None, None, [])


def test_a_finished_input_is_in_the_journal_at_once_and_nothing_else_is_left_at_the_end(tmp_path: Path) -> None:
    with files_of(tmp_path / "r.csv", paths(2), detectors=[LITE, OTHER]) as files:
        files.add(scanned(1, "1.mp4", LITE, number=0, of=2))
        assert (tmp_path / "r.jsonl").read_bytes() == b""  # a part of an input is of no use
        files.add(scanned(1, "1.mp4", OTHER, number=1, of=2))
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
    with files_of(tmp_path / "r.csv", paths(2)) as files:
        assert files._next_rendering - time.monotonic() == pytest.approx(30, abs=1)
        files.add(scanned(0, "0.mp4"))
        assert not (tmp_path / "r.csv").exists()


@pytest.fixture
def undisturbed(tmp_path: Path) -> tuple[bytes, bytes]:
    """Both files of a scan of ten inputs that ran to its end."""
    (tmp_path / "whole").mkdir()
    write(tmp_path / "whole" / "r.csv", *(scanned(index, f"{index}.mp4") for index in range(10)))
    return (tmp_path / "whole" / "r.csv").read_bytes(), (tmp_path / "whole" / "r.jsonl").read_bytes()


@pytest.mark.parametrize("committed", [True, False])
def test_a_scan_that_ended_early_goes_on_and_its_files_are_those_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: tuple[bytes, bytes], committed: bool
) -> None:
    out = tmp_path / "r.csv"
    for part in ([8, 1, 5], [], [0, 9], [7, 6, 4, 3, 2]):
        with files_of(out, paths(10)) as files:
            assert not files.done & set(part)
            for index in part:
                files.add(scanned(index, f"{index}.mp4"))
            if committed or part[-1:] == [2]:
                files.commit()
    assert (out.read_bytes(), (tmp_path / "r.jsonl").read_bytes()) == undisturbed
    with files_of(out, paths(10)) as files:
        assert files.done == set(range(10))
        done = list(files.results_done())
        assert files.commit() == out
    assert (out.read_bytes(), (tmp_path / "r.jsonl").read_bytes()) == undisturbed
    again = [replace(scanned(index, f"{index}.mp4"), details=()) for index in range(10)]
    assert [record_of(result) for result in done] == [record_of(result) for result in again]
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
    expected = [scanned(1, "b"), scanned(1, "new"), scanned(0, "a")]
    assert names_in(out) == ["moved/b", "new", "'=a"]
    records = records_in(tmp_path / "r.jsonl")
    assert [record["path"] for record in records] == ["moved/b", "new", "=a"]
    assert [record["score"] for record in records] == [record_of(result)["score"] for result in expected]
    assert [record["content"] for record in records] == contents
    with files_of(out, ["moved/b", "new", "=a"], contents=contents) as files:  # the changed lines have good checksums
        assert (files.done, files.notes) == (frozenset({0, 1, 2}), [])


def test_files_that_hold_the_same_are_scanned_once_and_reported_each(tmp_path: Path) -> None:
    out, inputs, contents = tmp_path / "r.csv", ["a", "b", "a2", "a3"], ["A", "B", "A", "A"]
    with files_of(out, inputs, contents=contents, detectors=[LITE, OTHER]) as files:
        assert files.done == {2, 3}
        one, other = (scanned(0, "a", key, number=number, of=2) for number, key in enumerate([LITE, OTHER]))
        assert files.add(other) == [other]
        copies = [
            replace(result, index=index, row=index * 2 + number, path=inputs[index])
            for index in (2, 3)
            for number, result in enumerate([one, other])
        ]
        assert files.add(one) == [one, *copies]
        files.commit()
    assert names_in(out) == ["a", "a", "a2", "a2", "a3", "a3"]
    with files_of(out, inputs, contents=contents, detectors=[LITE, OTHER]) as files:
        assert files.done == {0, 2, 3}
        for number, key in enumerate([LITE, OTHER]):
            files.add(scanned(1, "b", key, number=number, of=2))
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
    assert [record["status"] for record in records_in(tmp_path / "r.jsonl")] == ["scored", "scored"]
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


def test_damage_costs_the_files_it_was_about_and_is_reported(tmp_path: Path, undisturbed: tuple[bytes, bytes]) -> None:
    lines = undisturbed[1].splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"score": 0.2', b'"score": 0.3', 1)
    (tmp_path / "r.jsonl").write_bytes(b"".join(lines) + b'{"path": "torn')
    with files_of(tmp_path / "r.csv", paths(10)) as files:
        assert files.done == set(range(10)) - {3}
        assert files.notes == [
            f"{tmp_path / 'r.jsonl'} had damaged lines (1): the files they were about are scanned again."
        ]
        files.add(scanned(3, "3.mp4"))
        files.commit()
    assert ((tmp_path / "r.csv").read_bytes(), (tmp_path / "r.jsonl").read_bytes()) == undisturbed


def test_a_look_at_what_would_be_scanned_touches_nothing(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    write(out, scanned(0, "a"))
    with open(tmp_path / "r.jsonl", "ab") as file:
        file.write(b"torn")
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with files_of(tmp_path / "other.csv", ["a"]):  # nor does it need the lock
        for fresh, expected in [(False, (1,)), (True, (0, 1))]:
            plan = plan_without_writing(
                out, inputs=["a", "b"], contents=["fast:1:a", "fast:1:b"], detectors=[LITE], fresh=fresh
            )
            assert plan.to_scan == expected
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with files_of(out, ["a", "b"]):
        plan_without_writing(out, inputs=["a"], contents=["fast:1:a"], detectors=[LITE])
    with pytest.raises(OutputError, match="cannot be read"):
        plan_without_writing(tmp_path / "r.csv" / "r.csv", inputs=["a"], contents=[None], detectors=[LITE])


HOLD = """
import sys
from pathlib import Path
from tests.runtime.result_rows import files_of
with files_of(Path(sys.argv[1]), ["a"]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("second", ["r.csv", "r.txt", "link.csv", "../{0}/r.csv"])
def test_a_second_scan_onto_the_same_output_says_so_and_stops(tmp_path: Path, second: str) -> None:
    (tmp_path / "link.csv").symlink_to("r.csv")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "r.csv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=rf"written by another scan \(process {holder.pid}\)"):
            files_of(tmp_path / second.format(tmp_path.name), ["b"])
        with files_of(tmp_path / "free.csv", ["b"]):
            pass
        holder.send_signal(signal.SIGKILL)
    for name in (second.format(tmp_path.name), "r.csv"):
        with files_of(tmp_path / name, ["b"]):
            pass  # what the killed process left is no obstacle
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".lock")]


def test_the_lock_is_free_again_when_opening_fails(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").symlink_to("r.jsonl")
    for _ in range(2):
        with pytest.raises(OutputError, match="Too many levels"):
            files_of(tmp_path / "r.csv", ["a"])
    (tmp_path / "r.jsonl").unlink()
    with files_of(tmp_path / "r.csv", ["a"]):
        pass


def test_a_lock_that_cannot_be_written_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(OutputError, match="No space left"):
            files_of(tmp_path / "r.csv", ["a"])
    assert os.listdir(tmp_path) == []
    with files_of(tmp_path / "r.csv", ["a"]):
        pass


def test_a_lock_that_its_holder_removes_before_it_is_taken_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taking = lock_path(tmp_path / "r.csv"), fcntl.flock

    def removed_first(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", taking)
        lock.unlink()
        taking(file, operation)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with OutputLock([tmp_path / "r.csv"]):
        with pytest.raises(UsageError, match=rf"another scan \(process {os.getpid()}\)"):
            OutputLock([tmp_path / "r.csv"])
        assert lock.exists()
    assert not lock.exists()


FILL = """
import resource, sys
from pathlib import Path
from tests.runtime.result_rows import files_of, paths, scanned
with files_of(Path(sys.argv[1]), paths(100)) as files:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        for index in sorted(set(range(100)) - files.done):
            files.add(scanned(index, f"{index}.mp4"))
        files.commit()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_a_full_disk_is_an_output_error_and_what_was_finished_is_kept(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole / "r.csv", *(scanned(index, f"{index}.mp4") for index in range(100)))
    data = (whole / "r.jsonl").read_bytes()
    (tmp_path / "r.csv").write_text("old")
    # In the first line; in the middle; and when all are there, but there is no room for them a second time.
    for room in (100, len(data) // 2, len(data), 1 << 30):
        arguments = [sys.executable, "-c", FILL, str(tmp_path / "r.csv"), str(room)]
        child = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
        if room < len(data):
            assert re.fullmatch(r"OutputError: .*r\.csv .*cannot be written \(File too large\): .*\n", child.stdout)
            assert (tmp_path / "r.jsonl").read_bytes() == data[:room].rpartition(b"\n")[0] + b"\n" * (room > 100)
            assert (tmp_path / "r.csv").read_text() == "old"
        else:
            assert child.stdout == ""
    assert (tmp_path / "r.jsonl").read_bytes() == data
    assert (tmp_path / "r.csv").read_bytes() == (whole / "r.csv").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.jsonl", "whole"]


READ_ONLY = """
import os, sys
from pathlib import Path
from tests.runtime.result_rows import files_of, scanned
out = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    if sys.argv[2] == "before":
        out.parent.chmod(0o500)
    with files_of(out, ["a", "b"]) as files:
        files.add(scanned(0, "a"))
        out.parent.chmod(0o500)
        files.add(scanned(1, "b"))
        files.commit()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_folder_that_is_or_becomes_read_only_is_an_output_error(when: str) -> None:
    with tempfile.TemporaryDirectory() as outer:  # pytest's own folders are closed to other users
        folder = Path(outer) / "out"
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, 65534, 65534)
            Path(outer).chmod(0o755)
        arguments = [sys.executable, "-c", READ_ONLY, str(folder / "r.csv"), when]
        child = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
        assert re.fullmatch(r"OutputError: .*r\.csv .*cannot be written \(Permission denied\): .*\n", child.stdout)
        folder.chmod(0o700)
        if when == "before":
            assert os.listdir(folder) == []
        else:
            with files_of(folder / "r.csv", ["a", "b"]) as files:
                assert files.done == {0, 1}


@pytest.mark.parametrize("place", ["missing/r.csv", "file/r.csv"])
def test_a_place_where_nothing_can_be_written_is_an_output_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"r\.csv .*cannot be written"):
        files_of(tmp_path / place, ["a"])


def test_a_name_that_is_too_long_for_what_stands_beside_it_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="name too long"):
        files_of(tmp_path / f"r.{'c' * 250}", ["a"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("r.jsonl", "the name of a JSONL"),
        ("folder", "is a folder"),
        ("d.csv", "d.jsonl is a folder"),
        ("pipe", "a device or a pipe"),
    ],
)
def test_a_name_that_is_none_of_a_csv_is_refused(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "d.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=what):
        files_of(tmp_path / name, ["a"])


def test_a_link_stays_a_link_to_the_new_results(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for ending in ("csv", "jsonl"):
        (tmp_path / f"r.{ending}").symlink_to(f"elsewhere/real.{ending}")
    write(tmp_path / "r.csv", row())
    for ending in ("csv", "jsonl"):
        assert (tmp_path / f"r.{ending}").is_symlink()
        assert row().path in (tmp_path / "elsewhere" / f"real.{ending}").read_text()


@pytest.mark.parametrize(
    "taken",
    ["r.csv", "r.jsonl", "link", "folder/../r.csv", ".r.csv.lock", ".r.jsonl.lock", ".r.csv.123.partial"],
)
def test_an_input_is_never_written_to(tmp_path: Path, taken: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("r.jsonl")
    (tmp_path / taken).write_text("old")
    with pytest.raises(UsageError, match="one of the inputs"):
        files_of(tmp_path / "r.csv", ["other.mp4", str(tmp_path / taken)])
    assert (tmp_path / taken).read_text() == "old"


def test_what_killed_processes_left_is_removed_and_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_text("precious")
    (tmp_path / f".r.csv.{os.getpid()}.partial").symlink_to("video.mp4")
    (tmp_path / ".r.jsonl.99.partial").write_text("left")
    (tmp_path / ".r.jsonl.mine.partial").write_text("not ours")
    write(tmp_path / "r.csv", row())
    assert (tmp_path / "video.mp4").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == [".r.jsonl.mine.partial", "r.csv", "r.jsonl", "video.mp4"]


# Two detectors; of four inputs in a row the last holds the same as the first, and some have no content id.
SCAN = """
import sys
from pathlib import Path
from deepscan.runtime import result_files
from tests.runtime.result_rows import LITE, OTHER, files_of, paths, scanned
result_files.RENDER_SECONDS = 0.0
result_files.RENDER_SHARE = 1000.0
names, detectors = paths(200), [LITE, OTHER]
contents = [None if i % 20 == 6 else f"fast:1:{i - 3 if i % 4 == 3 else i}" for i in range(200)]
with files_of(Path(sys.argv[1]), names, contents=contents, detectors=detectors) as files:
    for index in sorted(set(range(200)) - files.done, key=lambda index: index * 37 % 200):
        print(index, flush=True)
        for number, key in enumerate(detectors):
            files.add(scanned(index, names[index], key, number=number, of=2))
    files.commit()
print("end", flush=True)
"""


def test_a_scan_that_is_killed_at_any_moment_and_continued_ends_as_if_undisturbed(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    subprocess.run([sys.executable, "-c", SCAN, str(tmp_path / "whole" / "r.csv")], check=True, cwd=ROOT)
    out = tmp_path / "r.csv"
    for stop_after in [0, 1, 7, 20, 20, 21, 30, None]:
        command = [sys.executable, "-c", SCAN, str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
            assert child.stdout is not None
            lines = child.stdout if stop_after is None else (child.stdout.readline() for _ in range(stop_after))
            told = list(lines)
            if stop_after is not None:
                child.send_signal(signal.SIGKILL)
        if out.exists():  # whole at any moment
            assert all(len(cells) == len(COLUMNS) for cells in rows_in(out))
    assert told[-1] == "end\n"
    assert len(told) < 100  # the rest was done before
    assert len(names_in(out)) == 400
    for name in ("r.csv", "r.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.jsonl", "whole"]
