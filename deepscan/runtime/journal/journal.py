"""RESULTS.jsonl is the journal: a line for each result, on the disk as soon as the file is finished.

Lines are handed to the operating system at once, so they survive the end of this process, however it ends. They are
flushed to the disk (fsync) by a thread of its own that begins at most a second after they were written, whether further
results come or not, and when the journal is closed: a power failure costs the results of the last second.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from deepscan.runtime.journal.journal_content import JournalContent, lines_of, moved_together, read_journal
from deepscan.runtime.journal.journal_lines import Entry, Place, decoded_head
from deepscan.runtime.journal.replacing import flush_folder, replace_files

SYNC_SECONDS: Final = 1.0


class Journal:
    """A journal that is being written; the caller holds the lock of its path.

    On opening, damaged lines and a torn last one are left out and the rest is written anew, atomically. A file that
    holds no record of this version, and with `fresh` any, is kept under another name.

    Args:
        path: of the JSONL; a link stays one.
        fresh: whether to begin with an empty one.

    Attributes:
        path: where it is, links resolved.
        entries: what it held when it was opened.
        damaged: how many damaged lines were left out.
        set_aside: under which name an earlier file is kept, or None.

    Raises:
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path = Path(os.path.realpath(path))
        self.set_aside: Path | None = None
        found = read_journal(self.path)
        if found.foreign or (fresh and found.entries):
            self.set_aside = _free_name(self.path)
            os.rename(self.path, self.set_aside)
            found = JournalContent()
        self.damaged = found.damaged
        if found.damaged or found.torn:
            replace_files({self.path: lines_of(self.path, found.entries)})
            found.entries = list(moved_together(found.entries))
        self.entries: Sequence[Entry] = found.entries
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        self._end = os.fstat(self._file).st_size
        self._error: OSError | None = None
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
        return decoded_head(self._read(place.offset, place.head))

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
            except OSError as error:  # the system tells once, and may have forgotten what it could not write
                self._error = error
                return


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _free_name(path: Path) -> Path:
    """Return `name.old.jsonl`, or with a number where that is taken; with this ending no folder's scan takes it up."""
    name, number = path.with_suffix(f".old{path.suffix}"), 1
    while os.path.lexists(name):
        number += 1
        name = path.with_suffix(f".old.{number}{path.suffix}")
    return name
