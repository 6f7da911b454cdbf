"""Output formats, chosen by the suffix of `--out`.

A package adds a format with an entry point in the group `deepscan.writers`. The entry point has the suffix without its
dot as its name, and leads to a `Writer`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Self

from deepscan.errors import OutputError, UsageError
from deepscan.plugins import load_plugin, plugins
from deepscan.results import COLUMNS, LATER_COLUMNS
from deepscan.runtime.store.journal import JOURNAL_SUFFIX

GROUP: Final = "deepscan.writers"
CSV_HEADER: Final = ",".join(COLUMNS) + "\n"
# Byte order mark; at the beginning of a CSV it tells Excel that the text is UTF-8.
BOM: Final = "\ufeff"
# A cell that begins like this is executed as a formula by spreadsheets; an apostrophe in front makes it text.
# Cells that begin with an apostrophe get one too, so that taking one away always gives back the text.
NEUTRALIZED: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n'")


@dataclass(frozen=True, slots=True)
class Writer:
    """An output format.

    Attributes:
        encode: function that takes all rows in order, as records of the JSONL without `track_details`, and yields the
            bytes of the file in pieces of any size. It is called several times during a scan, and each time the file
            is replaced as a whole.
        recognizes: function that takes the first 4,096 bytes of a file, or fewer if it is shorter, and tells whether
            this writer wrote it. No other file is replaced.
    """

    encode: Callable[[Iterable[Mapping[str, Any]]], Iterator[bytes]]
    recognizes: Callable[[bytes], bool]


def csv_line(record: Mapping[str, Any]) -> str:
    """Return a record's line of the CSV, newline included."""
    text = io.StringIO()
    # With this terminator the writer quotes both kinds of line break, which it would not do for a bare newline.
    csv.writer(text, lineterminator="\r\n").writerow([csv_cell(record[column]) for column in COLUMNS])
    return text.getvalue()[:-2] + "\n"


def jsonl_line(record: Mapping[str, Any]) -> str:
    """Return a record's line of a JSONL that is not a journal, in ASCII, newline included."""
    return json.dumps({name: value for name, value in record.items() if name != "peak_clips"}, allow_nan=False) + "\n"


def csv_cell(value: Any) -> str:
    """Return the text of a cell; None is empty, and what a spreadsheet would take for a formula is not."""
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(NEUTRALIZED) else text


def csv_text(cell: str) -> str:
    """Return the text that `csv_cell` made a cell of."""
    return cell.removeprefix("'")


def _csv(records: Iterable[Mapping[str, Any]], *, bom: bool = False) -> Iterator[bytes]:
    yield ((BOM if bom else "") + CSV_HEADER).encode("utf-8")
    for record in records:
        # The bytes of a name that is not valid UTF-8 are written as they are.
        yield csv_line(record).encode("utf-8", "surrogateescape")


def _is_csv(start: bytes) -> bool:
    """Tell whether a file begins with the columns and no others, or with those of an earlier version."""
    line, *_ = start.split(b"\n", 1)
    header = line.removeprefix(BOM.encode("utf-8")).rstrip(b"\r").split(b",")
    columns = [column.encode("ascii") for column in COLUMNS if column.encode("ascii") in header]
    missing = set(COLUMNS) - {column.decode("ascii") for column in columns}
    return header == columns and missing <= set(LATER_COLUMNS)


CSV: Final = Writer(_csv, _is_csv)
# By the suffix, in lower case, without `.jsonl`: that is the journal's, which is always written.
WRITERS: Final = {"": CSV, ".csv": CSV}


def writer_for(path: Path, *, bom: bool = False) -> Writer:
    """Return the writer of an output; with `bom`, a CSV begins with a byte order mark.

    Raises:
        UsageError: no format has this suffix, the format has no byte order mark, or the package that adds it is broken.
    """
    suffix = path.suffix.lower()
    writer = WRITERS[suffix] if suffix in WRITERS else _installed(path, suffix)
    if not bom:
        return writer
    if writer is not CSV:
        raise UsageError(f"--csv-bom belongs to a CSV, and {path} is none: leave it out.")
    return replace(writer, encode=partial(_csv, bom=True))


def is_output(path: str) -> bool:
    """Tell whether a path has the suffix of an output format; no suffix and that of a journal do not count."""
    suffix = Path(path).suffix.lower()
    if suffix in ("", JOURNAL_SUFFIX):
        return False
    return suffix in WRITERS or suffix[1:] in plugins(GROUP)


def _installed(path: Path, suffix: str) -> Writer:
    added = plugins(GROUP)
    if suffix[1:] not in added:
        others = "".join(f", or in .{known}" for known in added)
        raise UsageError(
            f"--out {path} is not the name of a CSV: deepscan writes a CSV, and a .jsonl beside it, so let it "
            f"end in .csv{others}."
        )
    writer: Writer = load_plugin(
        added[suffix[1:]],
        f"writer of {suffix}",
        wanted="deepscan.runtime.store.writers.Writer",
        fits=lambda found: isinstance(found, Writer),
        raises=UsageError,
    )
    return writer


class OrderedLines:
    """Lines on disk, added in any order and read in the order of their rows."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[int, tuple[int, int]] = {}
        self._next = 0

    def add(self, row: int, line: str) -> None:
        """Keep a line; raise OutputError if the temporary folder is full."""
        data = line.encode("utf-8", "surrogateescape")
        try:
            self._places[row] = (self._file.seek(0, os.SEEK_END), len(data))
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"Results cannot be written to {tempfile.gettempdir()}, where they wait for those before them "
                f"({error.strerror}): make room there, or use --out FILE."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk closing fails like writing, and the rest is not needed
            self._file.close()

    def ready(self) -> Iterator[str]:
        """Yield each line once, as soon as those of all rows before it have been yielded."""
        while self._next in self._places:
            self._next += 1
            yield self._line(self._next - 1)

    def remaining(self) -> Iterator[str]:
        """Yield the lines that `ready` has not, in order, even if some between them are missing."""
        for row in sorted(place for place in self._places if place >= self._next):
            yield self._line(row)

    def _line(self, row: int) -> str:
        start, length = self._places[row]
        self._file.seek(start)
        return self._file.read(length).decode("utf-8", "surrogateescape")
