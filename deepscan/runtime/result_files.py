"""results.csv and results.jsonl: in the order of the inputs whatever finishes first, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from deepscan.errors import OutputError, UsageError
from deepscan.runtime.replacing import replace_files
from deepscan.runtime.results import VideoResult

COLUMNS: Final = [
    "path",
    "status",
    "reason",
    "score",
    "label",
    "model",
    "faces",
    "tracks",
    "clips",
    "frames",
    "duration_seconds",
    "width",
    "height",
    "codec",
    "peak_start_seconds",
    "peak_end_seconds",
    "peak_score",
    "backend",
    "precision",
    "weights_sha256",
    "settings_sha256",
    "elapsed_seconds",
]
CSV_HEADER: Final = ",".join(COLUMNS) + "\n"
# A cell that begins like this is executed as a formula by spreadsheets; an apostrophe in front makes it text.
# Cells that begin with an apostrophe get one too, so that taking one away always gives back the text.
NEUTRALISED: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n'")


def record_of(result: VideoResult) -> dict[str, Any]:
    """Return the JSON record of a result: the columns of the CSV, and `track_details`."""
    fields = asdict(result)
    peak = fields.pop("peak") or {"start_seconds": None, "end_seconds": None, "score": None}
    fields |= {f"peak_{name}": peak[name] for name in ("start_seconds", "end_seconds", "score")}
    record = {column: _rounded(column, fields[column]) for column in COLUMNS}
    return record | {"track_details": [_rounded_deep(track) for track in fields["details"]]}


def csv_line(record: dict[str, Any]) -> str:
    """Return a record's line of the CSV, newline included."""
    text = io.StringIO()
    # With this terminator the writer quotes both kinds of line break, which it would not do for a bare newline.
    csv.writer(text, lineterminator="\r\n").writerow([_cell(record[column]) for column in COLUMNS])
    return text.getvalue()[:-2] + "\n"


class OrderedRecords:
    """Records on disk, added in any order and read in the order of their indices."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._places: dict[int, tuple[int, int]] = {}
        self._next = 0

    def add(self, index: int, record: dict[str, Any]) -> None:
        """Keep a record."""
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        self._places[index] = (self._file.seek(0, os.SEEK_END), len(line))
        self._file.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk closing fails as writing did, and nobody needs the rest
            self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def lines(self) -> Iterator[str]:
        """Yield every record's line of JSON in the order of their indices."""
        for index in sorted(self._places):
            yield self._line(index)

    def ready(self) -> Iterator[dict[str, Any]]:
        """Yield each record once, as soon as all those with lower indices have been yielded."""
        while self._next in self._places:
            self._next += 1
            yield self._record(self._next - 1)

    def remaining(self) -> Iterator[dict[str, Any]]:
        """Yield the records that `ready` has not, in order, though others may be missing between them."""
        for index in sorted(place for place in self._places if place >= self._next):
            yield self._record(index)

    def _record(self, index: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self._line(index))
        return record

    def _line(self, index: int) -> str:
        start, length = self._places[index]
        self._file.seek(start)
        return self._file.read(length).decode("ascii")


class ResultFiles:
    """Writes a CSV and, beside it, a JSONL; nothing appears under these names before `commit`.

    Args:
        csv_path: of the CSV; the JSONL gets the same name with another ending.
        inputs: paths that must not be overwritten.

    Raises:
        UsageError: the path cannot be that of a CSV, or is an input.
        OutputError: the folder is missing or cannot be written to.
    """

    def __init__(self, csv_path: Path, *, inputs: Sequence[str] = ()) -> None:
        if csv_path.suffix == ".jsonl":
            raise UsageError(f"--out {csv_path} is the name of a JSONL: name the CSV, the JSONL is written beside it.")
        self.csv_path = csv_path
        self.jsonl_path = csv_path.parent / f"{csv_path.stem}.jsonl"
        taken = {os.path.realpath(path) for path in inputs}
        for path in (self.csv_path, self.jsonl_path):
            if path.is_dir():
                raise UsageError(f"{path} is a folder and cannot be written to: let --out name a file.")
            if path.exists() and not path.is_file():
                raise UsageError(f"{path} is a device or a pipe: let --out name a file, or use - for stdout.")
            if os.path.realpath(path) in taken:
                raise UsageError(f"{path} is one of the inputs and would be overwritten: choose another --out.")
        try:
            self._records = OrderedRecords(csv_path.absolute().parent)
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._records.__exit__()

    def add(self, result: VideoResult) -> None:
        """Keep a result; they may come in any order."""
        try:
            self._records.add(result.row, record_of(result))
        except OSError as error:
            raise self._cannot_write(error) from error

    def commit(self, *, complete: bool = True) -> Path | None:
        """Write both files, replacing what was there only once they are whole and on the disk.

        Args:
            complete: whether every input is there; otherwise both names get `.partial` before their ending, so that
                an earlier complete result stays, and nothing is written if there is no result at all.

        Returns:
            The path of the CSV, or None if nothing was written.
        """
        if not complete and not len(self._records):
            return None
        ending = "" if complete else ".partial"
        csv_path = self.csv_path.with_suffix(f"{ending}{self.csv_path.suffix}")
        jsonl_path = self.jsonl_path.with_suffix(f"{ending}.jsonl")
        try:
            rows = map(csv_line, self._records.remaining())
            replace_files({jsonl_path: _encoded(self._records.lines()), csv_path: _encoded(chain([CSV_HEADER], rows))})
        except OSError as error:
            raise self._cannot_write(error) from error
        return csv_path

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"{self.csv_path} cannot be written ({error.strerror}): choose another place with --out.")


def _encoded(lines: Iterable[str]) -> Iterator[bytes]:
    """Encode lines; the bytes of a name that is not valid UTF-8 are written as they are."""
    return (line.encode("utf-8", "surrogateescape") for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(NEUTRALISED) else text


def _rounded(name: str, value: Any) -> Any:
    """Keep milliseconds of times and six digits of probabilities, however small."""
    if not isinstance(value, float):
        return value
    return round(value, 3) if name.endswith("seconds") else float(f"{value:.6g}")


def _rounded_deep(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [_rounded_deep(item) for item in inner] if isinstance(inner, (list, tuple)) else _rounded(name, inner)
        for name, inner in value.items()
    }
