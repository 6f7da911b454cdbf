"""Journal of results, such as results.jsonl: one line per result, written as soon as the file is finished.

Lines go to the operating system at once, so they survive any end of this process. A thread flushes them to the disk
(fsync) within about a second, and closing the journal flushes the rest: a power failure costs the results of the last
second.

The journal is append-only; only a last line that a kill cut off is removed. Later results are added at the end and take
precedence; `resume.rows_of` says which record a row of the output shows.

Every line has its own checksum, because a flipped bit in a number is still valid JSON.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from deepscan.errors import UsageError
from deepscan.results import LATER_COLUMNS, Status, VideoResult
from deepscan.runtime.store.identity import DetectorId, RowKey
from deepscan.runtime.system.files import atomic_write, flush_folder

SYNC_SECONDS: Final = 1.0
COPIED_BYTES: Final = 1 << 20
JOURNAL_SUFFIX: Final = ".jsonl"
DETAILS: Final = b', "track_details": '
CHECK: Final = b', "check": "%08x"}\n'
CHECK_BYTES: Final = len(CHECK % 0)
FIRST_BYTES: Final = b'{"path": "'
# Matches the beginning of a journal's first line, wherever it was cut off.
BEGUN: Final = re.compile(rb'\{"path": "(?:[^"\\]|\\.)*(?:\\|"(?:, "status": ".*)?)?', re.DOTALL)


class Place(NamedTuple):
    """Place of a line, in bytes: its offset, what comes before its track details, and all of it with the newline."""

    offset: int
    head: int
    length: int

    @classmethod
    def of(cls, line: bytes, offset: int) -> Place:
        """Return the place of a line that begins at `offset`."""
        # Quotes inside a JSON text are escaped, so no path or reason can look like the name of a field.
        return cls(offset, line.index(DETAILS), len(line))


class Entry(msgspec.Struct, frozen=True):
    """The parts of a line that planning a scan needs; see `VideoResult`."""

    place: Place
    path: str
    content: str | None
    detector: DetectorId
    computation: tuple[str, str]  # backend and precision
    status: Status

    @property
    def row(self) -> RowKey:
        """Key of the row that shows the result."""
        return RowKey.of(self.path, self.detector.model)


# Every line has one of the same few values, so each is kept in memory once.
_detector = cache(DetectorId)
_computation = cache(lambda backend, precision: (backend, precision))


def line_of(result: VideoResult) -> bytes:
    """Return the line of a result: its record with `content`, `peak_clips` and `check`, in ASCII, with a newline.

    `check` is the CRC-32 of everything before it in the line.
    """
    record = result.to_dict()
    tail = {name: record.pop(name) for name in ("peak_clips", "track_details")}
    return encoded(record | {"content": result.content} | tail)


def encoded(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record without `check`, which is added."""
    body = json.dumps(record, allow_nan=False).encode("ascii")[:-1]
    return body + CHECK % crc32(body)


def decoded(line: bytes) -> dict[str, Any]:
    """Return the record of a whole line, without `check`."""
    record: dict[str, Any] = json.loads(line)
    del record["check"]
    return record


def decoded_head(head: bytes) -> dict[str, Any]:
    """Return the record of the head of a line: everything but the track details, and every column of this version."""
    record: dict[str, Any] = json.loads(head + b"}")
    return record | {name: record.get(name) for name in LATER_COLUMNS}


def entry_of(line: bytes, offset: int) -> Entry | None:
    """Return the entry of a whole line at an offset, or None if the line is damaged or not a record."""
    body = line[:-CHECK_BYTES]
    if line != body + CHECK % crc32(body) or DETAILS not in body:
        return None
    place = Place.of(line, offset)
    try:
        record = decoded_head(line[: place.head])
        result = VideoResult.from_dict(record)
    except (ValueError, TypeError, RecursionError):
        return None
    return Entry(
        place=place,
        path=result.path,
        content=result.content,
        detector=_detector(result.model, result.weights_sha256, result.settings_sha256),
        computation=_computation(result.backend, result.precision),
        status=result.status,
    )


@dataclass(slots=True)
class JournalContent:
    """Contents of a journal.

    Attributes:
        entries: records in the order in which they were written.
        damaged: number of lines that are not records or do not match their checksum.
        end: number of bytes up to the end of the last complete line.
        torn: whether an incomplete line follows.
        foreign: whether the file is not empty and holds nothing that this version could have written.
    """

    entries: list[Entry] = field(default_factory=list)
    damaged: int = 0
    end: int = 0
    torn: bool = False
    foreign: bool = False


def read_journal(path: Path, *, entries: bool = True) -> JournalContent:
    """Read a journal; a missing one is empty. Without `entries`, read only enough to tell whether it is one."""
    found, last = JournalContent(), b""
    try:
        with open(path, "rb") as file:
            for line in file:
                entry, last = entry_of(line, found.end), line
                if not line.endswith(b"\n"):
                    found.torn = True
                    break
                found.end += len(line)
                if entry is None:
                    found.damaged += 1
                    continue
                found.entries.append(entry)
                if not entries:
                    return found
    except FileNotFoundError:
        return found
    # A first line that was cut off is no reason to keep the file.
    begun = not found.damaged and (FIRST_BYTES.startswith(last) or BEGUN.fullmatch(last) is not None)
    found.foreign = not found.entries and not begun
    return found


def journal_path(out: Path) -> Path:
    """Return the path of the journal beside an output."""
    return out.parent / f"{out.stem}{JOURNAL_SUFFIX}"


def backup_path(journal: Path) -> Path:
    """Return where `--fresh` keeps the earlier journal."""
    return journal.with_suffix(f".old{JOURNAL_SUFFIX}")


def refuse_other_journal(path: Path) -> None:
    """Raise UsageError for a file that exists and is not a journal."""
    if read_journal(path, entries=False).foreign:
        raise UsageError(
            f"{path}, which goes with the output, exists and is not a journal that this deepscan can continue: choose "
            "another --out."
        )


class Journal:
    """A journal to write to, by one scan at a time.

    Opening it locks it and cuts off a torn last line. Damaged lines stay where they are and are ignored.

    Args:
        path: path of the JSONL; a link stays a link.
        fresh: whether to begin an empty journal. The earlier one is kept under another name, where it replaces an
            older one.

    Attributes:
        path: path with links resolved.
        entries: entries at the time of opening.
        damaged: number of damaged lines.
        set_aside: path under which the earlier journal is kept, or None.

    Raises:
        UsageError: another scan writes to it, or the file, or the one for the earlier journal, is not a journal.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self.set_aside: Path | None = None
        refuse_other_journal(self.path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            found = self._locked(fresh=fresh)
        except BaseException:
            os.close(self._file)
            raise
        self.damaged = found.damaged
        self.entries: Sequence[Entry] = found.entries
        self._end = found.end
        self._error: Exception | None = None
        self._closing, self._unsynced = Event(), Event()
        flush_folder(self.path.parent)
        self._thread = Thread(target=self._sync_when_due, name="deepscan-journal", daemon=True)
        self._thread.start()

    def _locked(self, *, fresh: bool) -> JournalContent:
        """Lock the journal until it is closed or the process ends, and return what it holds."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{self.path} is being written by another scan: wait for it, or choose another --out."
            ) from error
        found = read_journal(self.path)
        if fresh and found.entries:
            self.set_aside = backup_path(self.path)
            refuse_other_journal(self.set_aside)
            with open(self.path, "rb") as earlier:  # a copy: who waits for the lock has this file open
                atomic_write({self.set_aside: iter(partial(earlier.read, COPIED_BYTES), b"")})
            found = JournalContent(torn=True)
        if found.torn:
            os.ftruncate(self._file, found.end)
        return found

    def append(self, lines: Sequence[bytes]) -> list[Place]:
        """Append lines in one write, and return their places.

        Raises:
            OSError: the lines cannot be written, or earlier ones could not be flushed; the earlier lines stay.
        """
        if self._error is not None:
            raise self._error
        places = []
        end = self._end
        for line in lines:
            places.append(Place.of(line, end))
            end += len(line)
        try:
            _write(self._file, b"".join(lines), self._end)
        except OSError:
            with suppress(OSError):  # if this fails, too, the next opening cuts the torn line off
                os.ftruncate(self._file, self._end)
            raise
        self._end = end
        self._unsynced.set()
        return places

    def line(self, place: Place) -> bytes:
        """Return a line, including the newline; raise OSError if it cannot be read."""
        return self._read(place.offset, place.length)

    def head(self, offset: int, length: int) -> dict[str, Any]:
        """Return a record without its track details, given the offset of its line and the bytes before the details.

        Raises:
            OSError: the line cannot be read.
        """
        return decoded_head(self._read(offset, length))

    def sync(self) -> None:
        """Flush everything to the disk; raise OSError if that fails, or failed earlier."""
        self._unsynced.clear()
        if self._error is not None:
            raise self._error
        os.fsync(self._file)

    def close(self) -> None:
        """Flush and close the journal, see `sync`; further calls do nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._unsynced.set()
        self._thread.join()
        try:
            self.sync()
        finally:
            os.close(self._file)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._file, length, offset)
        if len(data) < length:
            raise OSError(errno.EIO, "another program has cut it short")
        return data

    def _sync_when_due(self) -> None:
        while self._unsynced.wait() and not self._closing.wait(SYNC_SECONDS):
            self._unsynced.clear()
            try:
                os.fsync(self._file)
            except Exception as error:  # reported only once by the system, which may have dropped the data
                self._error = error
                return


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
