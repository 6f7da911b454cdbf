from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from deepscan.cli import doctor
from deepscan.cli.result_table import Column, ResultTable, Row, common_folder, wrapped

SCORE = Column("score", 9)
LABEL = Column("label", 8, name_width=10, right=False, below="")
MODEL = Column("model", 7, right=False, below="model ")
FRAMES = Column("frames", 4)
NOTE = "The decoder was killed by signal 11: copy the file again, or convert it to a common codec."


def table(*rows: Row) -> ResultTable:
    return ResultTable([SCORE, LABEL, MODEL, FRAMES], rows=list(rows))


def row(name: str, note: str = "") -> Row:
    return Row(name, [("0.884", ""), ("uncertain", ""), ("ftcn", ""), ("100", "")], note)


def printed(made: ResultTable, width: int | None) -> list[str]:
    return [line.plain for line in made.lines(width)]


@pytest.mark.parametrize("width", [20, 30, 40, 50, 80, 200])
def test_name_and_score_come_first_and_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = printed(table(row("swapped_face_av1.mp4", NOTE), row("二人の顔が映っている動画.webm")), width)
    assert max(map(cell_len, lines)) <= width
    head, _, first, *_ = lines
    assert head.split()[:2] == ["video", "score"]
    assert first.startswith("swapped_fa")
    assert first.split()[1] == "0.884"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, ["video", "score", "label", "model", "frames"]),
        (50, ["video", "score", "label", "model"]),
        (40, ["video", "score", "label"]),
        (20, ["video", "score"]),
    ],
)
def test_the_least_important_columns_go_first(width: int, columns: list[str]) -> None:
    assert printed(table(row("a_name_of_thirty_characters.mp4")), width)[0].split() == columns


def test_what_has_no_column_any_more_is_written_below_its_row_where_it_must_not_be_lost() -> None:
    lines = printed(table(row("a_name_of_thirty_characters.mp4")), 20)
    assert "  uncertain, model" in lines
    assert "  ftcn" in lines
    assert not any("100" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 50, 80])
def test_notes_are_broken_between_words_over_the_whole_width(width: int) -> None:
    lines = printed(table(row("a.mp4", NOTE)), width)
    note = [line for line in lines if line.startswith("  ") and not line.lstrip().startswith(("uncertain", "ftcn"))]
    assert " ".join(line.strip() for line in note) == NOTE
    assert max(map(len, note)) > width - 2 - max(map(len, NOTE.split()))


@pytest.mark.parametrize("width", [20, 80, None])
def test_a_note_that_several_rows_have_stands_once_below_the_table(width: int | None) -> None:
    lines = printed(table(row("a.mp4", NOTE), row("b.mp4"), row("c.mp4", NOTE), row("d.mp4", "Another.")), width)
    text = " ".join(line.strip() for line in lines)
    assert text.count(NOTE) == 1
    assert text.endswith(f"note 1: {NOTE}")
    assert "Another." in text
    assert text.count("note 1") == (3 if width == 20 else 1)
    marks = [line.split()[-1] for line in lines if line.startswith(("a.mp4", "b.mp4", "c.mp4"))]
    assert marks == (["0.884"] * 3 if width == 20 else ["1", "100", "1"])


NAMES = st.text(st.characters(exclude_categories=["C", "Z", "M"]), min_size=1, max_size=80)


@given(NAMES, st.integers(1, 120))
def test_a_name_of_any_length_and_script_loses_no_character(name: str, width: int) -> None:
    lines = printed(ResultTable([SCORE], rows=[Row(name, [("", "")])]), width)[1:]
    rule = next(number for number, line in enumerate(lines) if set(line) == {"─"})
    assert "".join(line.rstrip() for line in lines[rule + 1 :]).replace("  ", "") == name


def test_without_a_width_nothing_is_folded() -> None:
    lines = printed(table(row("x" * 300, NOTE)), None)
    assert lines[2].startswith("x" * 300 + "  0.884")
    assert lines[3] == f"  {NOTE}"


def test_an_empty_table_is_a_head() -> None:
    assert len(printed(table(), 40)) == 2


@given(st.text(st.sampled_from("ab 字"), max_size=60), st.integers(2, 30))
def test_wrapped_lines_fit_and_hold_every_word(text: str, width: int) -> None:
    lines = list(wrapped(text, width))
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_only_a_word_that_is_longer_than_a_line_is_broken() -> None:
    assert list(wrapped("see /a/very/long/path for more", 10)) == ["see", "/a/very/lo", "ng/path", "for more"]


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (["v/a.mp4", "v/b.mp4"], "v/"),
        (["v/x/a.mp4", "v/y/a.mp4"], "v/"),
        (["v1/a.mp4", "v2/a.mp4"], ""),
        (["/a.mp4", "/b.mp4"], ""),
        (["v/", "v/a.mp4"], ""),
        (["./v/a.mp4"], "./v/"),
        (["a.mp4"], ""),
    ],
)
def test_the_common_folder_is_what_all_paths_begin_with(paths: list[str], folder: str) -> None:
    assert common_folder(paths) == folder


def test_titles_of_several_lines_stand_on_the_rule() -> None:
    lines = printed(ResultTable([Column("p50\nms", 1), SCORE], rows=[Row("a", [("1.5", ""), ("2", "")])]), 40)
    assert [line.split() for line in lines[:2]] == [["p50"], ["video", "ms", "score"]]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_the_doctor_squeezes_nothing_into_narrow_columns(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "pip install 'deepscan-video[openvino]'"
    monkeypatch.setattr(doctor, "_findings", lambda: [doctor.Finding("openvino", False, NOTE, command)])
    monkeypatch.setattr(doctor, "_device", lambda: "CPU, 1 processor")
    monkeypatch.setenv("COLUMNS", str(columns))
    doctor.doctor()
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert f"  openvino: {command}" in lines  # a command is not folded, so that it can be copied
    assert max(len(line) for line in lines if command not in line) <= max(columns, len("To add what is missing:"))
    assert NOTE in " ".join(line.strip() for line in lines)
