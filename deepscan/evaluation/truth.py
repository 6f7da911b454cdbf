"""What is known of the videos of an evaluation: one row per video, from a CSV file or a known layout."""

from __future__ import annotations

import csv
import os
from typing import Final, Literal

import msgspec

from deepscan.errors import UsageError
from deepscan.runtime.media.inputs import normalized_path
from deepscan.wording import counted

TrueLabel = Literal["fake", "real"]
OPTIONAL: Final = ("method", "dataset", "group", "split")
COLUMNS: Final = ("path", "label", *OPTIONAL)


class TruthRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one video.

    Attributes:
        path: path of the video, or the end of it, or its content id (`fast:SIZE:HASH`).
        label: `fake` or `real`.
        method: how a fake was made; None for genuine videos.
        dataset: collection that it belongs to.
        group: source video or person; videos of a group are not independent of each other.
        split: part of the data set, such as `test`.
        line: number of its line in the CSV file.
    """

    path: str
    label: TrueLabel
    method: str | None = None
    dataset: str | None = None
    group: str | None = None
    split: str | None = None
    line: int | None = None


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of an evaluation.

    Attributes:
        source: path of the file or folder that they were read from.
        layout: name of the layout that was recognized.
        folder: folder that relative paths start from.
        rows: one per video.
        notes: sentences about what was not as expected.
    """

    source: str
    layout: str
    folder: str
    rows: tuple[TruthRow, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse labels of nothing."""
        if not self.rows:
            raise UsageError(f"{self.source} has no labels: give at least one video with its label.")


def truth_from_csv(path: str) -> Truth:
    """Read `path,label[,method,dataset,group,split]`; the first line names the columns, in any order.

    Raises:
        UsageError: the file cannot be read, has no such columns or no rows, or a label is neither fake nor real.
    """
    header, lines = _cells(path)
    rows: dict[str, TruthRow] = {}
    twice = 0
    for line, cells in lines:
        row = _row(path, line, dict(zip(header, cells, strict=True)))
        known = rows.setdefault(normalized_path(row.path), row)
        if msgspec.structs.replace(known, line=line, path=row.path) != row:
            raise UsageError(f"{path}, lines {known.line} and {line}, say different things about {row.path}: keep one.")
        twice += known is not row
    unused = [name for name in header if name not in COLUMNS]
    notes = [f"{counted(len(unused), 'column')} of {path} not used: {', '.join(unused)}."] if unused else []
    if twice:
        notes.append(f"{counted(twice, 'row')} of {path} said the same as another.")
    folder = os.path.dirname(path) or "."
    return Truth(source=path, layout="truth.csv", folder=folder, rows=tuple(rows.values()), notes=tuple(notes))


def _cells(path: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the number and the cells of each line that is not blank."""
    expected = f"its first line must be path,label[,{','.join(OPTIONAL)}]"
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give a CSV file of labels.") from error
    except csv.Error as error:
        raise UsageError(f"{path} is no CSV file ({error}): {expected}.") from error
    missing = [name for name in ("path", "label") if name not in header]
    if missing:
        raise UsageError(f"{path} has no column {' and no column '.join(missing)}: {expected}.")
    if len(set(header)) < len(header):
        raise UsageError(f"{path} names a column twice: {expected}.")
    for line, cells in lines:
        if len(cells) != len(header):
            said = f"has {counted(len(cells), 'cell')} instead of {len(header)}"
            raise UsageError(f"{path}, line {line}, {said}: put quotes around cells with commas.")
    return header, lines


def _row(path: str, line: int, cells: dict[str, str]) -> TruthRow:
    label = cells["label"].strip().lower()
    if label not in ("fake", "real"):
        hint = ", as 1 means fake in some data sets and real in others" if label in ("0", "1") else ""
        raise UsageError(f"{path}, line {line}: the label {cells['label']!r} is not known: write fake or real{hint}.")
    if not cells["path"]:
        raise UsageError(f"{path}, line {line}, has no path: give the path of the video.")
    known = {name: cells.get(name, "").strip() or None for name in OPTIONAL}
    if label == "real":
        known["method"] = None
    return TruthRow(path=cells["path"], label="fake" if label == "fake" else "real", line=line, **known)
