from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.result_files import COLUMNS, CSV_HEADER, OrderedRecords, ResultFiles, csv_line, record_of
from deepscan.runtime.results import Segment, TrackResult, VideoResult

# As in the design, written out: other programs rely on the names and their order.
DESIGNED = (
    "path,status,reason,score,label,model,faces,tracks,clips,frames,duration_seconds,width,height,codec,"
    "peak_start_seconds,peak_end_seconds,peak_score,backend,precision,weights_sha256,settings_sha256,elapsed_seconds"
)
# What spreadsheets execute.
FORMULA_STARTS = "=+-@\t\r"
PEAK = Segment(start_seconds=0.12345, end_seconds=1.98765, score=0.91234567, clips=7)
TRACK = TrackResult(track=3, start_seconds=0.0, end_seconds=2.00049, score=0.7654321, clips=9, timeline=(PEAK, PEAK))

# Names as the system gives them, undecodable bytes included, and names that begin like a formula.
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary().map(os.fsdecode),
    st.tuples(st.sampled_from(FORMULA_STARTS + "'\n"), st.text("=+'\"\r\n,; aé")).map("".join),
)


def row(index: int = 0, **changes: Any) -> VideoResult:
    fields: dict[str, Any] = {
        "index": index,
        "row": index,
        "path": f"{index}.mp4",
        "status": "no_face",
        "model": "lite",
        "backend": "onnxruntime-cpu",
        "precision": "fp32",
        "weights_sha256": "ab",
        "settings_sha256": "cd",
        "elapsed_seconds": 1.0,
    }
    return VideoResult(**(fields | changes))


def cells(result: VideoResult) -> dict[str, str]:
    (read,) = csv.reader(io.StringIO(csv_line(record_of(result)), newline=""))
    return dict(zip(COLUMNS, read, strict=True))


def write(out: Path, *results: VideoResult, inputs: tuple[str, ...] = ()) -> list[list[str]]:
    with ResultFiles(out, inputs=inputs) as files:
        for result in results:
            files.add(result)
        files.commit()
    with open(out, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_the_columns_are_those_of_the_design(tmp_path: Path) -> None:
    header, line = write(tmp_path / "r.csv", row())
    assert header == DESIGNED.split(",")
    assert CSV_HEADER == DESIGNED + "\n"
    assert len(line) == len(header)


@settings(deadline=None)
@given(texts, texts)
def test_any_text_comes_back_once_an_added_apostrophe_is_taken_away(path: str, reason: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, read = write(Path(folder) / "r.csv", row(path=path, reason=reason))
    for text, cell in zip((path, reason), (read[0], read[2]), strict=True):
        assert cell[:1] not in tuple(FORMULA_STARTS)
        assert (cell[1:] if cell.startswith("'") else cell) == text


@pytest.mark.parametrize("start", list(FORMULA_STARTS + "'"))
def test_a_cell_that_a_spreadsheet_would_execute_becomes_text(start: str) -> None:
    assert cells(row(path=f"{start}1+1"))["path"] == f"'{start}1+1"


def test_numbers_are_not_taken_for_formulas() -> None:
    assert cells(row(duration_seconds=-1.5))["duration_seconds"] == "-1.5"


def test_rows_are_in_the_order_of_the_inputs_whatever_finishes_first(tmp_path: Path) -> None:
    order = [7, 2, 0, 9, 4, 1, 8, 3, 6, 5]
    _, *rows = write(tmp_path / "r.csv", *(row(index) for index in order))
    assert [cell[0] for cell in rows] == [f"{index}.mp4" for index in range(10)]
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [f"{index}.mp4" for index in range(10)]


def test_the_rows_of_an_input_are_in_the_order_of_the_detectors(tmp_path: Path) -> None:
    results = [row(number // 2, row=number, model="ab"[number % 2]) for number in (5, 0, 3, 1, 4, 2)]
    _, *rows = write(tmp_path / "r.csv", *results)
    expected = [(f"{index}.mp4", model) for index in range(3) for model in "ab"]
    assert [(cell[0], cell[COLUMNS.index("model")]) for cell in rows] == expected
    records = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert [(record["path"], record["model"]) for record in records] == expected


@given(st.permutations(range(8)))
def test_records_become_ready_in_order_each_once_and_as_soon_as_possible(order: list[int]) -> None:
    seen: list[int] = []
    with OrderedRecords() as records:
        for count, index in enumerate(order, 1):
            records.add(index, {"index": index})
            seen += [record["index"] for record in records.ready()]
            waiting = next(number for number in range(9) if number not in order[:count])
            assert seen == list(range(waiting))


def test_the_jsonl_holds_exact_paths_tracks_and_timelines(tmp_path: Path) -> None:
    path = os.fsdecode(b'=a,"\n\r\xff.mp4')
    scored = row(path=path, status="scored", score=0.7654321, label="uncertain", peak=PEAK, details=(TRACK,))
    write(tmp_path / "r.csv", scored, row(1))
    data = (tmp_path / "r.jsonl").read_bytes()
    data.decode("ascii")
    first, second = (json.loads(line) for line in data.splitlines())
    assert list(first) == [*DESIGNED.split(","), "track_details"]
    assert first["path"] == path
    segment = {"start_seconds": 0.123, "end_seconds": 1.988, "score": 0.912346, "clips": 7}
    numbers = {"track": 3, "start_seconds": 0.0, "end_seconds": 2.0, "score": 0.765432, "clips": 9}
    assert first["track_details"] == [{**numbers, "timeline": [segment, segment]}]
    assert [first[f"peak_{name}"] for name in ("start_seconds", "end_seconds", "score")] == [0.123, 1.988, 0.912346]
    assert (second["score"], second["peak_score"], second["track_details"]) == (None, None, [])


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


def test_nothing_has_the_final_names_before_commit_and_nothing_else_is_left_after(tmp_path: Path) -> None:
    with ResultFiles(tmp_path / "r.csv") as files:
        files.add(row())
        assert not (tmp_path / "r.csv").exists()
        assert not (tmp_path / "r.jsonl").exists()
        files.commit()
    assert sorted(os.listdir(tmp_path)) == ["r.csv", "r.jsonl"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with the results of an earlier scan."""
    for name in ("r.csv", "r.jsonl"):
        (tmp_path / name).write_text("old")
    return tmp_path


def assert_untouched(folder: Path) -> None:
    assert {name: (folder / name).read_text() for name in os.listdir(folder)} == {"r.csv": "old", "r.jsonl": "old"}


def test_an_exception_before_commit_leaves_the_old_files(old: Path) -> None:
    def fail() -> None:
        with ResultFiles(old / "r.csv") as files:
            files.add(row())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert_untouched(old)


def test_a_row_that_cannot_be_written_leaves_the_old_files(old: Path) -> None:
    with pytest.raises(UnicodeEncodeError):  # no file system gives such a name
        write(old / "r.csv", row(path="\ud800"))
    assert_untouched(old)


def test_both_files_are_replaced_or_none(tmp_path: Path) -> None:
    out = tmp_path / f"r.{'c' * 243}"  # fits, but not the longer name under which it is written first
    (tmp_path / "r.jsonl").write_text("old")
    with pytest.raises(OutputError, match="name too long"):
        write(out, row())
    assert {name: (tmp_path / name).read_text() for name in os.listdir(tmp_path)} == {"r.jsonl": "old"}


FILL = """
import resource, sys
from pathlib import Path
from tests.runtime.test_result_files import row, write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    write(Path(sys.argv[1]), *(row(index, path=chr(233) * 40) for index in range(100)))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("room", [0, 1000, 20_000])
def test_a_full_disk_is_an_output_error_and_leaves_the_old_files(old: Path, room: int) -> None:
    arguments = [sys.executable, "-c", FILL, str(old / "r.csv"), str(room)]
    child = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert re.fullmatch(r"OutputError: .*r\.csv cannot be written \(File too large\): .*\n", child.stdout), child
    assert_untouched(old)


def test_the_limit_of_the_test_above_is_what_stops_it(old: Path) -> None:
    arguments = [sys.executable, "-c", FILL, str(old / "r.csv"), "1000000"]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
    assert len((old / "r.csv").read_text().splitlines()) == 101


@pytest.mark.parametrize("place", ["missing/r.csv", "file/r.csv"])
def test_a_place_where_nothing_can_be_written_is_an_output_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"r\.csv cannot be written"):
        ResultFiles(tmp_path / place)


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
        ResultFiles(tmp_path / name)


def test_unfinished_results_get_names_of_their_own_and_leave_a_complete_one_alone(old: Path) -> None:
    before = {path: path.read_bytes() for path in old.iterdir()}
    with ResultFiles(old / "r.csv") as files:
        assert files.commit(complete=False) is None
        assert {path: path.read_bytes() for path in old.iterdir()} == before
        files.add(row())
        assert files.commit(complete=False) == old / "r.partial.csv"
    added = {path.name: path.read_bytes() for path in old.iterdir() if path not in before}
    assert {path: path.read_bytes() for path in before} == before
    assert added.keys() == {"r.partial.csv", "r.partial.jsonl"}
    assert all(row().path.encode() in data for data in added.values())


def test_a_link_stays_a_link_to_the_new_results(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "r.csv").symlink_to("elsewhere/real.csv")
    with ResultFiles(tmp_path / "r.csv") as files:
        files.add(row())
        files.commit()
    assert (tmp_path / "r.csv").is_symlink()
    assert row().path in (tmp_path / "elsewhere" / "real.csv").read_text()


@pytest.mark.parametrize("taken", ["r.csv", "r.jsonl", "link", "folder/../r.csv"])
def test_an_input_is_never_overwritten(old: Path, taken: str) -> None:
    (old / "link").symlink_to("r.jsonl")
    (old / "folder").mkdir()
    with pytest.raises(UsageError, match="one of the inputs"):
        ResultFiles(old / "r.csv", inputs=["other.mp4", str(old / taken)])
    assert (old / "r.csv").read_text() == "old"
