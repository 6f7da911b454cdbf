"""A table of results for terminals of any width: the file and its score first, notes below their row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells
from rich.text import Text

from deepscan.cli.screen import STYLES
from deepscan.wording import printable

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.results import VideoResult

UNTRAINED = "(untrained)"  # in the name of a detector
GAP = 2
INDENT = 2
# Cells that names keep, if they need them, before columns behind them are taken away.
NAME_WIDTH = 20


@dataclass(frozen=True, slots=True)
class Column:
    """One column behind the names.

    Attributes:
        title: its heading, of one line or several.
        importance: the column with the lowest one is the first to go as the terminal narrows.
        name_width: cells that the names must keep, if they need them, for this column to stay.
        right: whether it is aligned at its right side.
        below: what stands before a cell that is written below its row, where there is no room for the column; None
            leaves it out then.
    """

    title: str
    importance: int
    name_width: int = NAME_WIDTH
    right: bool = True
    below: str | None = None


SCORE = Column("score", 9)
LABEL = Column("label", 8, name_width=10, right=False, below="")
# Numbers of the notes that several rows have.
NOTE = Column("note", 5, right=False, below="note ")


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: printable, of any length; it is folded where it does not fit.
        cells: text and style for each column.
        note: a sentence about the row, printable; shown below it, over the whole width, or below the table where
            several rows have the same.
    """

    name: str
    cells: Sequence[tuple[str, str]]
    note: str = ""


def result_row(result: VideoResult, folder: str, *more: tuple[str, str]) -> Row:
    """Return the row of a result: its path below a folder, the cells of SCORE and LABEL, more cells, its reason."""
    return Row(
        printable(result.path[len(folder) :]),
        [
            ("" if result.score is None else f"{result.score:.3f}", ""),
            (result.label or result.status, STYLES.get(result.label or "", "")),
            *more,
        ],
        printable(result.reason),
    )


def model_cell(name: str) -> tuple[str, str]:
    """Return the cell of a detector's name."""
    return printable(name), "bold red" if UNTRAINED in name else ""


@dataclass(slots=True)
class ResultTable:
    """Lays out rows, from top to bottom, with columns behind the names, of which the first one always stays."""

    columns: Sequence[Column]
    name_title: str = "video"
    rows: list[Row] = field(default_factory=list)

    def lines(self, width: int | None, *, rule: str = "─") -> Iterator[Text]:
        """Yield the table in lines of so many cells, or with None as many as it takes; `rule` draws a line."""
        counts = Counter(row.note for row in self.rows if row.note)
        shared = {note: number for number, note in enumerate((note for note in counts if counts[note] > 1), 1)}
        if not shared:
            yield from self._lines(width, rule)
            return
        marked = [
            replace(
                row,
                cells=[*row.cells, (str(shared.get(row.note, "")), "")],
                note="" if row.note in shared else row.note,
            )
            for row in self.rows
        ]
        yield from ResultTable([*self.columns, NOTE], self.name_title, marked)._lines(width, rule)
        for note, number in shared.items():
            for line in wrapped(f"note {number}: {note}", width):
                yield Text(line, "dim")

    def _lines(self, width: int | None, rule: str) -> Iterator[Text]:
        widths = [
            max(map(cell_len, [*column.title.split("\n"), *(row.cells[number][0] for row in self.rows)]))
            for number, column in enumerate(self.columns)
        ]
        natural = max(cell_len(self.name_title), *(cell_len(row.name) for row in self.rows), 0)
        shown = _fitting(self.columns, widths, natural, width)
        beside = sum(widths[number] + GAP for number in shown)
        names = natural if width is None else max(1, min(natural, width - beside))
        shape = [(widths[number], self.columns[number].right) for number in shown]
        titles = [self.columns[number].title.split("\n") for number in shown]
        for left in range(max(map(len, titles)), 0, -1):  # the last lines of all titles stand beside each other
            cells = [(title[-left] if left <= len(title) else "", "bold") for title in titles]
            yield from _row(self.name_title if left == 1 else "", cells, names, shape, "bold")
        yield Text(rule * (names + beside), "dim")
        for row in self.rows:
            yield from _row(row.name, [row.cells[number] for number in shown], names, shape)
            demoted = [
                f"{column.below}{row.cells[number][0]}"
                for number, column in enumerate(self.columns)
                if number not in shown and column.below is not None and row.cells[number][0]
            ]
            for note in (", ".join(demoted), row.note):
                for line in wrapped(note, None if width is None else max(1, width - INDENT)) if note else ():
                    yield Text(" " * INDENT + line, "dim")


def print_lines(console: Console, table: ResultTable) -> None:
    """Print a table as wide as the terminal allows."""
    for line in table.lines(line_width(console), rule="-" if console.options.ascii_only else "─"):
        console.print(line, soft_wrap=True)


def line_width(console: Console) -> int | None:
    """Return the cells of a line; None for a file or a pipe, where no name is to be folded."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def common_folder(paths: Sequence[str]) -> str:
    """Return the folder, with its slash, that all paths begin with; nothing if there is none worth naming."""
    prefix = os.path.commonprefix(list(paths))  # noqa: RUF071 - of characters: the rest of a path is cut off behind it
    folder = prefix[: prefix.rfind("/") + 1]
    return "" if folder == "/" or folder in paths else folder


def wrapped(text: str, width: int | None) -> Iterator[str]:
    """Break a text between words into lines of so many cells; only a word longer than a line is broken itself."""
    if width is None:
        yield text
        return
    line: str | None = None
    for word in text.split(" "):
        longer = word if line is None else f"{line} {word}"
        if cell_len(longer) <= width:
            line = longer
            continue
        if line is not None:
            yield line
        *whole, line = chop_cells(word, width) or [""]
        yield from whole
    if line is not None:
        yield line


def _fitting(columns: Sequence[Column], widths: Sequence[int], natural: int, width: int | None) -> list[int]:
    """Return the numbers of the columns that fit, the first one always among them."""
    shown = list(range(len(columns)))
    for number in sorted(shown[1:], key=lambda number: columns[number].importance):
        least = min(natural, columns[number].name_width)
        if width is not None and least + sum(widths[kept] + GAP for kept in shown) > width:
            shown.remove(number)
    return shown


def _row(
    name: str, cells: Sequence[tuple[str, str]], names: int, shape: Sequence[tuple[int, bool]], style: str = ""
) -> Iterator[Text]:
    """Yield the lines of a row: cells stand beside the first line of the name."""
    first, *others = chop_cells(name, names) or [""]
    line = Text(first + " " * (names - cell_len(first)), style)
    for (text, cell_style), (size, right) in zip(cells, shape, strict=True):
        padding = " " * (size - cell_len(text))
        line.append(" " * GAP + (padding if right else ""))
        line.append(text, cell_style)
        line.append("" if right else padding)
    line.rstrip()
    yield line
    for other in others:
        yield Text(other, style)
