"""Labels: read from CSV files, and found for results by path, suffix and content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deepscan.errors import UsageError
from deepscan.evaluation.labels import match_labels, read_truth
from deepscan.evaluation.truth import Truth, TruthRow
from deepscan.runtime.media.content import content_id
from tests.runtime.result_rows import row


def truth_of(*rows: TruthRow, folder: str = "/nowhere") -> Truth:
    return Truth(source="truth.csv", layout="truth.csv", folder=folder, rows=rows)


def label(path: str, label: Any = "real", **fields: Any) -> TruthRow:
    return TruthRow(path=path, label=label, **fields)


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "truth.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_columns_come_in_any_order_and_empty_cells_mean_nothing(tmp_path: Path) -> None:
    text = '\ufeffLabel,path,group,method\nFAKE,"a,1.mp4",x,swap\nreal,b\udcff.mp4,,real\n\n'
    truth = read_truth(csv_file(tmp_path, text))
    assert (truth.layout, truth.notes, truth.folder) == ("truth.csv", (), str(tmp_path))
    assert truth.rows == (
        label("a,1.mp4", "fake", group="x", method="swap", line=2),
        label("b\udcff.mp4", line=3),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column path and no column label"),
        ("path;label\na;fake\n", "has no column path"),
        ("path,label\n", "has no labels"),
        ("path,label,label\na,fake,fake\n", "names a column twice"),
        ("path,label\na,1\n", "line 2: the label '1' is not known: write fake or real, as 1 means"),
        ("path,label\na,fale\n", "the label 'fale' is not known: write fake or real"),
        ("path,label\na,fake\nb,c,real\n", "line 3, has 3 cells instead of 2"),
        ("path,label\n,fake\n", "line 2, has no path"),
        ("path,label\na,fake\na,real\n", "lines 2 and 3, say different things about a"),
        ("path,label\na,fake\n./a,real\n", "lines 2 and 3, say different things about ./a"),
        ('path,label\n"a,fake\n', "is no CSV file"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_truth(csv_file(tmp_path, text))


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_truth(tmp_path / "none.csv")


def test_repeated_rows_and_other_columns_are_counted(tmp_path: Path) -> None:
    truth = read_truth(csv_file(tmp_path, "path,label,mood\na,fake,x\na,fake,y\n"))
    assert len(truth.rows) == 1
    assert "1 column of" in truth.notes[0]
    assert "not used: mood" in truth.notes[0]
    assert truth.notes[1].startswith("1 row of")


def test_the_same_path_counts_before_its_end_and_relative_ones_start_at_the_file(tmp_path: Path) -> None:
    truth = truth_of(label("a.mp4", "fake"), label("b.mp4"), label("c/d.mp4", "fake"), folder=str(tmp_path))
    found = match_labels([row(path=path) for path in (f"{tmp_path}/a.mp4", "./b.mp4", "/x/c/d.mp4", "y/b.mp4")], truth)
    assert [(each.result.path, each.truth.path, each.matched_by) for each in found.labeled] == [
        (f"{tmp_path}/a.mp4", "a.mp4", "path"),
        ("./b.mp4", "b.mp4", "path"),
        ("/x/c/d.mp4", "c/d.mp4", "suffix"),
    ]
    assert found.unlabeled == ("y/b.mp4",)
    assert "1 result has no label and is left out: y/b.mp4." in found.notes


def test_an_ambiguous_end_is_counted_and_not_guessed() -> None:
    truth = truth_of(label("m/a.mp4", "fake"), label("n/b.mp4"), label("o/c.mp4"), label("o/c.mp4/", "fake"))
    found = match_labels([row(path=path) for path in ("1/m/a.mp4", "2/m/a.mp4", "n/b.mp4", "z/o/c.mp4")], truth)
    assert [each.result.path for each in found.labeled] == ["n/b.mp4"]
    assert found.ambiguous == ("1/m/a.mp4", "2/m/a.mp4", "z/o/c.mp4")
    assert found.without_result == ("m/a.mp4", "o/c.mp4", "o/c.mp4/")
    assert any(note.startswith("3 results have ambiguous labels") for note in found.notes)
    assert any(note.startswith("3 labels are of videos without a result") for note in found.notes)


def test_an_end_is_made_of_whole_names() -> None:
    with pytest.raises(UsageError, match="No result is about a video"):
        match_labels([row(path="/x/not-a.mp4")], truth_of(label("a.mp4")))


def test_a_file_that_was_renamed_is_found_by_its_content(tmp_path: Path) -> None:
    for name, size in (("a.mp4", 10), ("b.mp4", 10), ("big.mp4", 4 << 20)):
        (tmp_path / name).write_bytes(name.encode() * size)
    truth = truth_of(
        label("a.mp4", "fake"), label("b.mp4"), label("big.mp4", "fake"), label("gone.mp4"), folder=str(tmp_path)
    )
    results = [
        row(path="one.mp4", content=content_id(str(tmp_path / "a.mp4"), full=False)),
        row(path="two.mp4", content=content_id(str(tmp_path / "big.mp4"), full=True)),
    ]
    found = match_labels(results, truth)
    assert [(each.truth.path, each.matched_by) for each in found.labeled] == [
        ("a.mp4", "content"),
        ("big.mp4", "content"),
    ]
    known = truth_of(label(str(results[0].content), "fake"))
    assert match_labels(results, known).labeled[0].matched_by == "content"


def test_the_same_content_with_two_labels_is_refused(tmp_path: Path) -> None:
    truth = truth_of(label("a.mp4", "fake"), label("b.mp4"))
    copies = [row(path=path, content="fast:1:aa") for path in ("a.mp4", "b.mp4")]
    with pytest.raises(UsageError, match=r"a\.mp4 and b\.mp4 have the same content but one is fake and one real"):
        match_labels(copies, truth)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"same")
    renamed = row(path="c.mp4", content=content_id(str(tmp_path / "a.mp4"), full=False))
    with pytest.raises(UsageError, match="have the same content"):
        match_labels([renamed], truth_of(*truth.rows, folder=str(tmp_path)))


def test_leaks_between_splits_are_found_in_contents_and_groups() -> None:
    truth = truth_of(
        label("a.mp4", split="train", group="1"),
        label("b.mp4", split="test", group="2"),
        label("c.mp4", split="test", group="1"),
        label("d.mp4", split="test", group="3"),
        label("e.mp4", group="3"),
    )
    contents = ("fast:1:aa", "fast:1:aa", "fast:1:cc", "fast:1:dd", None)
    results = [row(path=f"{name}.mp4", content=content) for name, content in zip("abcde", contents, strict=True)]
    found = match_labels(results, truth, split="test")
    assert found.leaks == (("a.mp4", "b.mp4"), ("a.mp4", "c.mp4"))
    assert [each.result.path for each in found.labeled] == ["b.mp4", "c.mp4", "d.mp4"]
    assert any(note.startswith("2 leaks were found") for note in found.notes)
    assert any(note.startswith("1 result has no content id") for note in found.notes)


def test_a_split_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="no split 'tset': use one of test, train"):
        match_labels([row(path="a")], truth_of(label("a", split="test"), label("b", split="train")), split="tset")
    with pytest.raises(UsageError, match="No result is about a video of the split train"):
        match_labels([row(path="a")], truth_of(label("a", split="test"), label("b", split="train")), split="train")


def test_clusters_are_groups_or_contents_or_paths() -> None:
    truth = truth_of(label("a", group="g"), label("b"), label("c"))
    results = [row(path="a"), row(path="b", content="fast:1:b"), row(path="c", content=None)]
    assert [each.cluster for each in match_labels(results, truth).labeled] == ["g", "fast:1:b", "c"]


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_matched_by_their_ends(tmp_path: Path) -> None:
    lines = (f"{number % 9}/{number}.mp4,{'fake' if number % 2 else 'real'}" for number in range(100_000))
    truth = read_truth(csv_file(tmp_path, "\n".join(["path,label", *lines])))
    results = [row(path=f"/data/{each.path}") for each in truth.rows]
    assert len(match_labels(results, truth).labeled) == 100_000
