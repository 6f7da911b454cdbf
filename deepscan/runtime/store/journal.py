"""RESULTS.jsonl is the journal: a line for each result, on the disk as soon as the file is finished.

Lines are handed to the operating system at once, so they survive the end of this process, however it ends. They are
flushed to the disk (fsync) by a thread of its own that begins at most a second after they were written, whether further
results come or not, and when the journal is closed: a power failure costs the results of the last second.

Nothing that was written is ever written again or taken away, apart from a last line that a kill cut off. What later
runs find comes behind it, and counts instead of it; `rows.py` says which record a row of the CSV shows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from deepscan.runtime.store.journal_content import JournalContent, read_journal
from deepscan.runtime.store.journal_lines import Entry, Place, decoded_head
from deepscan.runtime.store.output_paths import backup_path, refuse_other_journal
from deepscan.runtime.system.files import flush_folder

SYNC_SECONDS: Final = 1.0


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
            except OSError as error:  # the system tells once, and may have forgotten what it could not write
                self._error = error
                return


def _write(file: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
