"""Journal of results, such as results.jsonl: a line for each result, on the disk as soon as the file is finished.

Lines are handed to the operating system at once, so they survive the end of this process, however it ends. They are
flushed to the disk (fsync) by a thread of its own that begins at most a second after they were written, whether further
results come or not, and when the journal is closed: a power failure costs the results of the last second.

Nothing that was written is ever written again or taken away, apart from a last line that a kill cut off. What later
runs find comes behind it, and counts instead of it; `resume.rows_of` says which record a row of the output shows.

A line is a record with a checksum of its own, because a flipped bit in a number is still JSON.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from deepscan.errors import UsageError
from deepscan.results import Status, VideoResult
from deepscan.runtime.store.identity import Computation, DetectorId, RowKey
from deepscan.runtime.system.files import flush_folder

SYNC_SECONDS: Final = 1.0
JOURNAL_SUFFIX: Final = ".jsonl"
DETAILS: Final = b', "track_details": '
CHECK: Final = b', "check": "%08x"}\n'
# Earlier versions took such failures for facts about a content: they say nothing about it.
UNREACHABLE: Final = (
    "The file cannot be opened (",
    "Reading the file failed (",
    "Decoding it failed in an unforeseen way (OSError(",
)
CHECK_BYTES: Final = len(CHECK % 0)
FIRST_BYTES: Final = b'{"path": "'
# The beginning of a journal's first line, wherever it was cut off.
BEGUN: Final = re.compile(rb'\{"path": "(?:[^"\\]|\\.)*(?:\\|"(?:, "status": ".*)?)?', re.DOTALL)


class Place(NamedTuple):
    """Place of a line.

    Attributes:
        offset: of the line in the journal, in bytes.
        head: bytes before the track details; with a closing brace they are JSON.
        length: bytes of the line, newline included.
    """

    offset: int
    head: int
    length: int

    @classmethod
    def of(cls, line: bytes, offset: int) -> Place:
        """Return the place of a line that begins at `offset`."""
        # Quotes inside a JSON text are escaped, so no path or reason can look like the name of a field.
        return cls(offset, line.index(DETAILS), len(line))


class Entry(msgspec.Struct, frozen=True):
    """Facts of a line that planning needs.

    Attributes:
        place: where it is.
        path: of the file, as it was given to the scan.
        content: content id of the file that was scanned, see `content_id`; None if it could not be read.
        detector: what it was scanned with.
        computation: what computed the result.
        status: of the result.
    """

    place: Place
    path: str
    content: str | None
    detector: DetectorId
    computation: Computation
    status: Status

    @property
    def row(self) -> RowKey:
        """The row that it is of."""
        return RowKey.of(self.path, self.detector.model)


# The same few in every line: each is kept once.
_detector = cache(DetectorId)
_computation = cache(Computation)


def line_of(result: VideoResult) -> bytes:
    """Return a result's line: its record with `content`, `peak_clips` and `check`, in ASCII, newline included.

    `check` is the CRC-32 of all that comes before it in the line.
    """
    record = result.to_dict()
    tail = {name: record.pop(name) for name in ("peak_clips", "track_details")}
    return encoded(record | {"content": result.content} | tail)


def encoded(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record that has no `check` yet."""
    body = json.dumps(record, allow_nan=False).encode("ascii")[:-1]
    return body + CHECK % crc32(body)


def decoded(line: bytes) -> dict[str, Any]:
    """Return the record of a whole line, without its `check`."""
    record: dict[str, Any] = json.loads(line)
    del record["check"]
    return record


def decoded_head(head: bytes) -> dict[str, Any]:
    """Return the record of a line's head: all but the track details."""
    record: dict[str, Any] = json.loads(head + b"}")
    return record


def entry_of(line: bytes, offset: int) -> Entry | None:
    """Return the facts of a line, or None if it is damaged or no record of a journal.

    Args:
        line: whole, newline included.
        offset: of the line in the journal.
    """
    body = line[:-CHECK_BYTES]
    if line != body + CHECK % crc32(body) or DETAILS not in body:
        return None
    place = Place.of(line, offset)
    try:
        record = decoded_head(line[: place.head])
        result = VideoResult.from_dict(record)
    except (ValueError, TypeError, RecursionError):
        return None
    unreachable = result.status == "unreadable" and result.reason.startswith(UNREACHABLE)
    return Entry(
        place=place,
        path=result.path,
        content=None if unreachable else result.content,
        detector=_detector(result.model, result.weights_sha256, result.settings_sha256),
        computation=_computation(result.backend, result.precision),
        status=result.status,
    )


@dataclass(slots=True)
class JournalContent:
    """Contents of a journal.

    Attributes:
        entries: its records, in the order in which they were written.
        damaged: how many lines are no records, or do not fit their checksum.
        end: bytes up to the end of the last line that was written to its end.
        torn: there is more behind it.
        foreign: it is not empty, and has nothing that this version could have written.
    """

    entries: list[Entry] = field(default_factory=list)
    damaged: int = 0
    end: int = 0
    torn: bool = False
    foreign: bool = False


def read_journal(path: Path, *, entries: bool = True) -> JournalContent:
    """Read a journal, line by line; one that is not there is empty.

    Args:
        path: of the journal.
        entries: whether all of them are wanted; else it is read until it is clear whose file it is.

    Raises:
        OSError: it cannot be read.
    """
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
    # The beginning of a first line that was cut off is nothing to be kept.
    begun = not found.damaged and (FIRST_BYTES.startswith(last) or BEGUN.fullmatch(last) is not None)
    found.foreign = not found.entries and not begun
    return found


def journal_path(out: Path) -> Path:
    """Return the path of the journal beside an output."""
    return out.parent / f"{out.stem}{JOURNAL_SUFFIX}"


def backup_path(journal: Path) -> Path:
    """Return where `--fresh` keeps the journal before: with this ending no folder's scan takes it up."""
    return journal.with_suffix(f".old{JOURNAL_SUFFIX}")


def refuse_other_journal(path: Path) -> None:
    """Refuse a file that is not a journal.

    Raises:
        UsageError: there is one.
        OSError: it cannot be read.
    """
    if read_journal(path, entries=False).foreign:
        raise UsageError(
            f"{path}, which goes with the output, exists and is not a journal that this deepscan can continue: choose "
            "another --out."
        )


class Journal:
    """A journal that is being written; the caller holds the lock of its path.

    On opening, a torn last line is cut off; damaged ones stay where they are and are passed over.

    Args:
        path: of the JSONL; a link stays one.
        fresh: whether to begin with an empty one; the one before is kept under another name, in place of an older one.

    Attributes:
        path: where it is, links resolved.
        entries: what it held when it was opened.
        damaged: how many damaged lines are passed over.
        set_aside: under which name an earlier journal is kept, or None.

    Raises:
        UsageError: a file there, or where the earlier journal would be kept, is not a journal.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self.set_aside: Path | None = None
        refuse_other_journal(self.path)
        found = read_journal(self.path)
        if fresh and found.entries:
            self.set_aside = backup_path(self.path)
            refuse_other_journal(self.set_aside)
            os.replace(self.path, self.set_aside)
            found = JournalContent()
        self.damaged = found.damaged
        self.entries: Sequence[Entry] = found.entries
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        self._end = found.end
        if found.torn:
            os.ftruncate(self._file, self._end)
        self._error: Exception | None = None
        self._closing, self._unsynced = Event(), Event()
        flush_folder(self.path.parent)
        self._thread = Thread(target=self._sync_when_due, name="deepscan-journal", daemon=True)
        self._thread.start()

    def append(self, lines: Sequence[bytes]) -> list[Place]:
        """Write lines behind the others, in one go, and return where they are.

        Raises:
            OSError: they cannot be written, or earlier ones could not be flushed; those before are still there.
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
            with suppress(OSError):  # if even that fails, the next one to open it cuts the torn line off
                os.ftruncate(self._file, self._end)
            raise
        self._end = end
        self._unsynced.set()
        return places

    def line(self, place: Place) -> bytes:
        """Return a line, newline included.

        Raises:
            OSError: it cannot be read.
        """
        return self._read(place.offset, place.length)

    def head(self, place: Place) -> dict[str, Any]:
        """Return a record without its track details.

        Raises:
            OSError: it cannot be read.
        """
        return self.head_at(place.offset, place.head)

    def head_at(self, offset: int, length: int) -> dict[str, Any]:
        """Return a record without its track details, which begin after so many bytes of its line.

        Raises:
            OSError: it cannot be read.
        """
        return decoded_head(self._read(offset, length))

    def sync(self) -> None:
        """Flush what was written to the disk.

        Raises:
            OSError: that fails, now or earlier.
        """
        self._unsynced.clear()
        if self._error is not None:
            raise self._error
        os.fsync(self._file)

    def close(self) -> None:
        """Flush and close it, once.

        Raises:
            OSError: something could not be flushed.
        """
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
            except Exception as error:  # the system tells once, and may have forgotten what it could not write
                self._error = error
                return


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
