from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from deepscan.errors import UsageError
from deepscan.results import COLUMNS, Quality, VideoResult
from deepscan.runtime.store.journal import encoded
from deepscan.runtime.store.stored_results import stored_results
from deepscan.runtime.store.writers import CSV_HEADER, OrderedLines, csv_line, jsonl_line
from tests.runtime.result_rows import LITE, OTHER, files_of, row, rows_in, scanned, write

TAIL = ("peak_clips", "track_details")  # at the end of the journal's lines

# As in the design, written out: other programs rely on the names and their order.
DESIGNED = (
    "path,status,reason,score,label,quality,model,faces,tracks,clips,frames,duration_seconds,width,height,codec,"
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
    (read,) = csv.reader(io.StringIO(csv_line(result.to_dict()), newline=""))
    return dict(zip(COLUMNS, read, strict=True))


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


@pytest.mark.parametrize("start", list(FORMULA_STARTS + "'"))
def test_a_cell_that_a_spreadsheet_would_execute_becomes_text(start: str) -> None:
    assert cells(row(path=f"{start}1+1"))["path"] == f"'{start}1+1"


def test_numbers_are_not_taken_for_formulas() -> None:
    assert cells(row(duration_seconds=-1.5))["duration_seconds"] == "-1.5"


@given(st.permutations(range(8)))
def test_lines_become_ready_in_order_each_once_and_as_soon_as_possible(order: list[int]) -> None:
    seen: list[int] = []
    with OrderedLines() as lines:
        for count, index in enumerate(order, 1):
            lines.add(index, f"{index}\n")
            seen += map(int, lines.ready())
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
    record = json.loads(json.dumps(result.to_dict()))
    again = VideoResult.from_dict(record, index=result.index, row=result.row)
    assert again.to_dict() == result.to_dict()
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
        *("score", "label", "quality", "duration_seconds", "width", "height", "codec"),
        *("peak_start_seconds", "peak_end_seconds", "peak_score"),
    }
    assert "0.5" not in read.values()


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


def test_the_thresholds_of_a_label_are_in_the_record_and_not_in_the_csv() -> None:
    result = replace(row(), score=0.5, label="uncertain", real_below=0.35, fake_from=0.8)
    record = result.to_dict()
    assert (record["real_below"], record["fake_from"]) == (0.35, 0.8)
    assert not {"real_below", "fake_from"} & set(COLUMNS)
    older = {name: value for name, value in record.items() if name not in ("real_below", "fake_from")}
    again = VideoResult.from_dict(older)
    assert (again.real_below, again.fake_from) == (None, None)


def test_results_of_a_version_without_quality_are_read_and_their_csv_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    quality = Quality(sharpness=0.51234567, blockiness=1.0, bits_per_pixel=None, face_pixels=200)
    new = scanned(0, "a.mp4", quality="fair", quality_details=quality)
    assert VideoResult.from_dict(new.to_dict()).quality_details == replace(quality, sharpness=0.512346)
    header, line = write(out, new)
    place = header.index("quality")
    assert line[place] == "fair"
    record = new.to_dict() | {"content": new.content}
    older = {name: value for name, value in record.items() if name not in ("quality", "quality_details", *TAIL)}
    out.with_suffix(".jsonl").write_bytes(encoded(older | {name: record[name] for name in TAIL}))
    out.write_text("".join(",".join(cells[:place] + cells[place + 1 :]) + "\n" for cells in (header, line)))
    with files_of(out, ["a.mp4"]) as files:
        (again,) = files.results_done()
        files.commit()
    assert (again.score, again.label, again.quality, again.quality_details) == (0.5, "fake", None, None)
    assert rows_in(out) == [header, [*line[:place], "", *line[place + 1 :]]]


def test_a_table_with_other_columns_is_still_refused(tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    for header in (DESIGNED.replace("score,", ""), f"{DESIGNED},more", DESIGNED.replace("score,label", "label,score")):
        out.write_text(f"{header}\n")
        with pytest.raises(UsageError):
            files_of(out, ["a.mp4"])


def test_every_field_of_a_result_is_in_its_record() -> None:
    result = scanned(0, "a.mp4")
    record = result.to_dict()
    elsewhere = {"index", "row", "content", "peak", "details"}
    assert set(record) == {*COLUMNS, "real_below", "fake_from", "quality_details", "peak_clips", "track_details"}
    assert {name for name in VideoResult.__struct_fields__ if name not in record} == elsewhere
    assert VideoResult.from_dict(record | {"content": result.content}).to_dict() == record


def test_a_record_that_was_printed_is_read_though_it_tells_less(tmp_path: Path) -> None:
    path, result = tmp_path / "printed.jsonl", scanned(0, "a.mp4")
    path.write_text(jsonl_line(result.to_dict()))
    ((read, offset),) = stored_results(str(path)).rows
    assert read.peak is not None
    assert (read.path, read.peak.score, read.peak.clips, read.content) == ("a.mp4", 0.912346, 0, None)
    assert [track.track for track in stored_results(str(path)).tracks_at(offset)] == [3]
