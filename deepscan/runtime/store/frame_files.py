"""Per-frame files (`--per-frame`): one row per scored crop or clip, as Parquet or CSV.

Workers leave one part per input and detector in a folder (`pipeline/frame_parts.py`). A finished part gets the name of
what it belongs to: content, detector, weights, settings and computation, like a record of the journal. With a journal
the folder stays, as `FILE.parts`, and the file is written from it at the end of each scan, whole or not at all: parts
are to the file what the journal is to the CSV. A part is renamed before its record is in the journal, so a scan that is
killed in between scans that video again and replaces the part.

Parts, not messages to the supervisor: a worker that scores faster than its supervisor reads would fill the memory with
messages, and those of a worker that dies would have to be taken back.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from deepscan.errors import MachineError, OutputError, UsageError
from deepscan.installing import install_extra
from deepscan.results import FRAME_COLUMNS, FUSED, VideoResult
from deepscan.runtime.pipeline.frame_parts import is_whole, partial_part, read_part
from deepscan.runtime.store.identity import DetectorId
from deepscan.runtime.store.writers import csv_cell
from deepscan.runtime.system.files import atomic_write, check_replaceable, remove_partials
from deepscan.wording import counted, plural

if TYPE_CHECKING:
    from deepscan.runtime.store.journal import Entry

CSV_SUFFIX: Final = ".csv"
PARQUET_SUFFIX: Final = ".parquet"
FRAMES_HEADER: Final = ",".join(FRAME_COLUMNS)
MARK: Final = b"deepscan.frames"  # in the metadata of a Parquet file that deepscan wrote
PARTS_SUFFIX: Final = ".parts"
PART: Final = re.compile(r"[0-9a-f]{32}\.frames|[0-9]+\.[0-9]+\.partial")
ROWS_AT_ONCE: Final = 1 << 14
SINGLE: Final = frozenset(FRAME_COLUMNS[slice(FRAME_COLUMNS.index("x"), FRAME_COLUMNS.index("start_seconds"))])
log = logging.getLogger(__name__)


class FrameRows(NamedTuple):
    """The rows of one video and detector: what they begin with, and the name of their part."""

    path: str
    model: str
    part: str


def frame_rows_of(record: Mapping[str, Any]) -> FrameRows | None:
    """Return the rows that belong to a record of the journal; None if it has no score, or one of a fusion."""
    if record["status"] != "scored" or record["model"] == FUSED:
        return None
    detector = DetectorId(record["model"], record["weights_sha256"], record["settings_sha256"])
    part = _part_name(record["content"], record["path"], detector, (record["backend"], record["precision"]))
    return FrameRows(record["path"], record["model"], part)


def _part_name(content: str | None, path: str, detector: DetectorId, computation: tuple[str, str]) -> str:
    # What has no content id is scanned by every scan, which replaces the part.
    key = json.dumps([content, path if content is None else None, *detector, *computation])
    return f"{hashlib.sha256(key.encode('ascii')).hexdigest()[:32]}.frames"


def parts_folder(out: str) -> str:
    """Return the folder of the parts of a per-frame file that goes with a journal."""
    return f"{out}{PARTS_SUFFIX}"


def has_frames(out: str, entry: Entry) -> bool:
    """Tell whether what belongs to an entry of the journal is there: the part, if the video was scored."""
    if entry.status != "scored":
        return True
    return is_whole(
        os.path.join(parts_folder(out), _part_name(entry.content, entry.path, entry.detector, entry.computation))
    )


def check_frame_file(out: str, inputs: Sequence[str]) -> None:
    """Refuse a path at which no per-frame file can be written.

    Raises:
        UsageError: the suffix belongs to no format, or the path is an input or something that deepscan has not written.
        MachineError: a package for the format is missing.
    """
    suffix = Path(out).suffix.lower()
    if suffix not in (CSV_SUFFIX, PARQUET_SUFFIX):
        raise UsageError(f"--per-frame {out} has no known format: let it end in .parquet or .csv.")
    real = os.path.realpath(out)
    if os.path.exists(real) and not os.path.isfile(real):
        raise UsageError(f"--per-frame {out} is no file: give the path of a file to write.")
    if any(os.path.realpath(path) == real for path in inputs):
        raise UsageError(f"{out} is one of the inputs and would be overwritten: choose another --per-frame.")
    if suffix == PARQUET_SUFFIX:
        with needing_pyarrow(out):
            import pyarrow.parquet  # noqa: F401 - before there are hours of work to write
    try:
        own = not os.path.exists(real) or not os.path.getsize(real) or _is_own(real, suffix)
    except OSError as error:
        raise UsageError(f"{out} cannot be read ({error.strerror}): choose another --per-frame.") from error
    if not own:
        raise UsageError(
            f"{out} exists and is no per-frame file of deepscan: move it away, or choose another --per-frame."
        )


@contextmanager
def needing_pyarrow(path: str) -> Iterator[None]:
    """Within this, a missing package raises a MachineError that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MachineError(
            f"{path} needs the package {error.name}: run `{install_extra('frames')}`, or use a .csv."
        ) from error


def _is_own(path: str, suffix: str) -> bool:
    if suffix == CSV_SUFFIX:
        with open(path, "rb") as file:
            return file.readline(len(FRAMES_HEADER) + 2).rstrip(b"\r\n") == FRAMES_HEADER.encode()
    import pyarrow
    import pyarrow.parquet

    with open(path, "rb") as file:
        try:
            return MARK in (pyarrow.parquet.read_schema(file).metadata or {})
        except pyarrow.ArrowInvalid:
            return False


class FrameStore:
    """The parts of a per-frame file, for one scan at a time, and the file that is made of them.

    Args:
        out: path of the file.
        temporary: whether the parts are removed in the end, as they are where there is no journal.
        fresh: whether the parts of earlier scans are removed first.

    Attributes:
        folder: the folder for the parts.

    Raises:
        UsageError: another scan writes this file.
        OutputError: the folder or the file cannot be written.
    """

    def __init__(self, out: str, *, temporary: bool, fresh: bool = False) -> None:
        self._out, self._temporary = out, temporary
        with self._writing():
            parent = os.path.dirname(os.path.abspath(out))
            os.makedirs(parent, exist_ok=True)
            check_replaceable(Path(out))
            if temporary:
                name = os.path.basename(out)
                self.folder = tempfile.mkdtemp(prefix=f".{name}.", suffix=PARTS_SUFFIX, dir=parent)
            else:
                self.folder = parts_folder(out)
                os.makedirs(self.folder, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise UsageError(
                f"{out} is being written by another scan: wait for it, or choose another --per-frame."
            ) from error
        remove_partials(Path(out))
        self._remove(fresh=fresh)

    def adopt(self, results: Sequence[VideoResult]) -> list[FrameRows]:
        """Give the parts of a finished input their names, and return the rows that are in them."""
        adopted = []
        for number, result in enumerate(results):
            rows = frame_rows_of(result.to_dict() | {"content": result.content})
            if rows is not None:
                with self._writing():
                    os.replace(partial_part(self.folder, result.index, number), os.path.join(self.folder, rows.part))
                adopted.append(rows)
        return adopted

    def write(self, rows: Iterable[FrameRows | None]) -> None:
        """Write the file, with these rows as far as their parts are there, in this order; None is no rows."""
        missing = 0

        def there() -> Iterator[tuple[Any, ...]]:
            nonlocal missing
            for each in rows:
                if each is None:
                    continue
                part = os.path.join(self.folder, each.part)
                if not is_whole(part):
                    missing += 1
                    continue
                for values in read_part(part):
                    yield (each.path, each.model, *values)

        encode = _parquet if Path(self._out).suffix.lower() == PARQUET_SUFFIX else _csv
        with self._writing():
            atomic_write({Path(self._out): encode(there())})
        if missing:
            log.warning(
                "%s of earlier scans without --per-frame %s not in %s.",
                counted(missing, "row"),
                plural(missing, "is", "are"),
                self._out,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self._remove(fresh=False)
        os.close(self._lock)

    def _remove(self, *, fresh: bool) -> None:
        """Remove what killed workers left; with `fresh`, whole parts, too."""
        with suppress(OSError), os.scandir(self.folder) as found:
            for each in found:
                if PART.fullmatch(each.name) and (fresh or each.name.endswith(".partial")):
                    os.unlink(each.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self._out} or its parts cannot be written ({error.strerror}): once they can be, give the same "
                "command again, or choose another place with --per-frame."
            ) from error


def _csv(rows: Iterator[tuple[Any, ...]]) -> Iterator[bytes]:
    yield f"{FRAMES_HEADER}\n".encode()
    formats = [_single if name in SINGLE else _boolean if name == "found" else csv_cell for name in FRAME_COLUMNS]
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([form(value) for form, value in zip(formats, row, strict=True)] for row in chunk)
        yield text.getvalue().encode("utf-8", "surrogateescape")


def _single(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.7g}"


def _boolean(value: object) -> str:
    return "true" if value else "false"


class _Sink(io.RawIOBase):
    """A file that only grows, from which what was written is taken piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data


def _parquet(rows: Iterator[tuple[Any, ...]]) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    kinds = {name: pyarrow.float32() for name in SINGLE}
    kinds |= {"path": pyarrow.string(), "model": pyarrow.string(), "found": pyarrow.bool_()}
    kinds |= {"track": pyarrow.int32(), "frame": pyarrow.int64(), "frames": pyarrow.int32()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in FRAME_COLUMNS], {MARK: b"1"})
    sink = _Sink()
    with pyarrow.parquet.ParquetWriter(pyarrow.PythonFile(sink, mode="w"), schema, compression="zstd") as writer:
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            path, *columns = zip(*chunk, strict=True)
            # Parquet's text is UTF-8.
            paths = {name: name.encode("utf-8", "backslashreplace").decode() for name in set(path)}
            values = chain([[paths[name] for name in path]], columns)
            # With `from_pandas`, NaN is null.
            arrays = [
                pyarrow.array(column, each.type, from_pandas=each.name in SINGLE)
                for column, each in zip(values, schema, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            yield sink.taken()
    yield sink.taken()
