"""Reading what scans have written: `read_results` for the rows of videos, `read_frames` for per-frame files."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import msgspec

from deepscan import arguments as check
from deepscan.arguments import AnyPath
from deepscan.errors import MachineError, UsageError
from deepscan.installing import install_packages
from deepscan.results import COLUMNS, FRAME_COLUMNS, PEAK_COLUMNS, FrameScore, VideoResult
from deepscan.runtime.store.frame_files import PARQUET_SUFFIX, needing_pyarrow
from deepscan.runtime.store.identity import RowKey
from deepscan.runtime.store.journal import JOURNAL_SUFFIX, entry_of
from deepscan.runtime.store.stored_results import CHECKED
from deepscan.runtime.store.writers import csv_text

ROWS_AT_ONCE: Final = 1 << 14
ADVICE: Final = "give a .csv or .jsonl that `deepscan scan` has written"
FRAMES_ADVICE: Final = "give a per-frame file that a scan has written"
Row = TypeVar("Row", bound=msgspec.Struct)


class _Rows(ABC, Generic[Row]):
    """Rows of a file, which each iteration reads again, so that few of them are in memory at once."""

    _columns: ClassVar[tuple[str, ...]]
    _advice: ClassVar[str]

    def __init__(self, path: AnyPath) -> None:
        self.path = check.path("path", path)

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in the order of the file."""

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one column for each of the file's CSV; pandas must be installed."""
        with _needing("pandas"):
            import pandas
        return pandas.DataFrame(self._by_column())

    def to_polars(self) -> Any:
        """Return a `polars.DataFrame` with one column for each of the file's CSV; polars must be installed."""
        with _needing("polars"):
            import polars
        return polars.DataFrame(self._by_column(), strict=False, infer_schema_length=None)

    def _by_column(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in self._columns}
        for row in self:
            values = self._values(row)
            for name, column in columns.items():
                column.append(values[name])
        # Text of both libraries is UTF-8.
        columns["path"] = [path.encode("utf-8", "backslashreplace").decode() for path in columns["path"]]
        return columns

    def _values(self, row: Row) -> Mapping[str, Any]:
        return {name: getattr(row, name) for name in self._columns}

    def _csv_rows(self, kind: type[Row], of_cells: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[Row]:
        """Yield the rows of a CSV; `of_cells` makes the fields of a row of its cells that are not empty."""
        with self._reading(), open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if not {"path", "model", "score"} <= set(header) <= set(self._columns):
                raise UsageError(f"{self.path} does not begin with the columns of its kind: {self._advice}.")
            for cells in lines:
                with self._damage_at(lines.line_num):
                    given = zip(header, cells, strict=True)
                    yield msgspec.convert(of_cells({name: cell for name, cell in given if cell}), kind, strict=False)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read ({error.strerror}): {self._advice}.") from error
        except csv.Error as error:
            raise UsageError(f"{self.path} is no CSV ({error}): {self._advice}.") from error

    @contextmanager
    def _damage_at(self, line: int) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:  # ValidationError is a ValueError
            raise UsageError(f"{self.path}, line {line}, is damaged or no row: {self._advice}.") from error


class VideoRows(_Rows[VideoResult]):
    """Rows of a CSV or JSONL of results; see `read_results`."""

    _columns = COLUMNS
    _advice = ADVICE

    def __init__(self, path: AnyPath) -> None:
        super().__init__(path)
        self._is_csv = Path(self.path).suffix.lower() != JOURNAL_SUFFIX
        # Of a JSONL only the places of the newest records are kept: their tracks may be large.
        self._places: dict[RowKey, tuple[int, int]] = {}
        if not self._is_csv:
            self._find_newest()
        self._length = sum(1 for _ in self) if self._is_csv else len(self._places)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[VideoResult]:
        """Yield the rows in the order of the file; of a JSONL, in the order of the first record of each."""
        if self._is_csv:
            yield from self._csv_rows(VideoResult, _fields_of_cells)
            return
        with self._reading(), open(self.path, "rb") as file:
            for offset, number in self._places.values():
                file.seek(offset)
                with self._damage_at(number):
                    row = VideoResult.from_dict(json.loads(file.readline()))
                yield row

    def _values(self, row: VideoResult) -> Mapping[str, Any]:
        peak = {column: getattr(row.peak, name, None) for column, name in PEAK_COLUMNS.items()}
        return peak | {name: getattr(row, name) for name in COLUMNS if name not in PEAK_COLUMNS}

    def _find_newest(self) -> None:
        offset = 0
        with self._reading(), open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    with self._damage_at(number):
                        self._places[_key_of(line)] = offset, number
                offset += len(line)


class FrameRows(_Rows[FrameScore]):
    """Rows of a per-frame file; see `read_frames`."""

    _columns = FRAME_COLUMNS
    _advice = FRAMES_ADVICE

    def __init__(self, path: AnyPath) -> None:
        super().__init__(path)
        self._is_parquet = Path(self.path).suffix.lower() == PARQUET_SUFFIX
        if self._is_parquet:
            with needing_pyarrow(self.path), self._reading():
                self._check_parquet()
        else:
            next(iter(self), None)

    def __iter__(self) -> Iterator[FrameScore]:
        """Yield the rows in the order of the file."""
        if not self._is_parquet:
            yield from self._csv_rows(FrameScore, _text_of_cells)
            return
        import pyarrow.parquet

        with self._reading(), pyarrow.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(FRAME_COLUMNS)):
                for record in batch.to_pylist():
                    yield FrameScore(**record)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with the columns of the file; pandas must be installed."""
        if not self._is_parquet:
            return super().to_pandas()
        with _needing("pandas"):
            import pandas
        return pandas.read_parquet(self.path)

    def to_polars(self) -> Any:
        """Return a `polars.DataFrame` with the columns of the file; polars must be installed."""
        if not self._is_parquet:
            return super().to_polars()
        with _needing("polars"):
            import polars
        return polars.read_parquet(self.path)

    def _check_parquet(self) -> None:
        import pyarrow
        import pyarrow.parquet

        with open(self.path, "rb") as file:
            try:
                names = pyarrow.parquet.read_schema(file).names
            except pyarrow.ArrowInvalid:
                names = []
        if not set(FRAME_COLUMNS) <= set(names):
            raise UsageError(f"{self.path} is no per-frame file: {self._advice}.")


def read_results(path: AnyPath) -> VideoRows:
    """Return the rows of a CSV or JSONL that `deepscan scan` has written, as `VideoResult`s.

        for row in read_results("results.jsonl"):
            print(row.path, row.score)

    It can be iterated over again and again, and has a length, `to_pandas()` and `to_polars()`. Of several records of a
    JSONL about the same path and detector the last one counts. A CSV has neither tracks nor thresholds.

    Raises:
        UsageError: the file cannot be read, or a line is damaged or no row; the message has the number of the line.
    """
    return VideoRows(path)


def read_frames(path: AnyPath) -> FrameRows:
    """Return the rows of a per-frame file, Parquet or CSV, as `FrameScore`s.

    It can be iterated over again and again, and has `to_pandas()` and `to_polars()`.

    Raises:
        UsageError: the file cannot be read or is no per-frame file. A damaged line of a CSV raises it on the way.
        MachineError: pyarrow, which reads Parquet, is not installed.
    """
    return FrameRows(path)


def _key_of(line: bytes) -> RowKey:
    """Return the key of a line of a JSONL; raise ValueError for a damaged one. Lines without a checksum count."""
    if not line.endswith(b"\n"):
        raise ValueError("The line is torn.")
    if CHECKED in line:
        entry = entry_of(line, 0)
        if entry is None:
            raise ValueError("The checksum is wrong.")
        return entry.row
    row = VideoResult.from_dict(json.loads(line))
    return RowKey.of(row.path, row.model)


def _text_of_cells(cells: dict[str, Any]) -> dict[str, Any]:
    return cells | {"path": csv_text(cells["path"]), "model": csv_text(cells["model"])}


def _fields_of_cells(cells: dict[str, Any]) -> dict[str, Any]:
    fields = {name: csv_text(cell) for name, cell in cells.items() if name not in PEAK_COLUMNS}
    peak = {name: cells.get(column) for column, name in PEAK_COLUMNS.items()} | {"clips": 0}
    return fields | {"index": 0, "row": 0, "peak": peak if peak["score"] is not None else None}


@contextmanager
def _needing(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MachineError(f"A table of {package} needs the package: run `{install_packages(package)}`.") from error
