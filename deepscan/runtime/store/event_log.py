r"""The log of a scan (`--log FILE`): one JSON object on each line, for programs and for `grep`.

Every line has `time` (UTC, ISO 8601, milliseconds) and `event`; then what the event is about, if there is any: `stage`,
`worker`, `file`; then its details. Lines of later scans follow those of earlier ones. Undecodable bytes of a file's
name are escaped as JSON escapes them (a lone surrogate, `\udc80` to `\udcff`), which Python's `json.loads` and
`os.fsencode` turn back into the bytes; the log itself is plain ASCII, so that no name can move a terminal's cursor.

An event is a record of Python's `logging` that has an attribute `event`, a dictionary; its name stands under `event`.
Whoever wants the events in another form adds another handler to the logger `deepscan`.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from deepscan.errors import OutputError
from deepscan.runtime.system.files import refuse_unwritable

START: Final = b'{"time":"'  # of every line
ABOUT: Final = ("event", "stage", "worker", "file")


class EventLog(logging.Handler):
    """Appends the events among the records to a file; each line reaches the file at once, and whole.

    A disk that fills up, or whatever else goes wrong after the opening, ends the log and not the scan: see `problem`.

    Args:
        path: of the file; what is there already must be a log.

    Attributes:
        problem: why the log ended early; None where it did not.

    Raises:
        OutputError: the file cannot be written, or is not a log.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(logging.DEBUG)
        self.path = os.fspath(path)
        self.problem: str | None = None
        self._file = _opened(self.path)

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event; raise nothing, and do nothing after the log has ended or was closed."""
        event = getattr(record, "event", None)
        if not isinstance(event, dict) or self._file < 0 or self.problem is not None:
            return
        try:
            now = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            about = {name: event[name] for name in ABOUT if event.get(name) is not None}
            details = {name: value for name, value in event.items() if name not in ABOUT}
            _append(self._file, _line({"time": now} | about | details))
        except OSError as error:
            self.problem = f"{self.path} cannot be written any more ({error.strerror}): the log ends there."
        except Exception as error:  # a detail without a text: no reason to lose a scan of days
            self.problem = f"{self.path} ends with an event that cannot be written ({type(error).__name__})."

    def close(self) -> None:
        """Close the file; may be called again."""
        self.acquire()
        try:
            if self._file >= 0:
                with suppress(OSError):
                    os.close(self._file)
                self._file = -1
        finally:
            self.release()
        super().close()


def refuse_bad_log(path: str) -> None:
    """Say what prevents a log, without writing anything.

    Raises:
        OutputError: the file cannot be written, or is not a log.
    """
    refuse_unwritable(path, begins=START, kind="log")


def _line(record: dict[str, object]) -> bytes:
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False, default=str)
    except (TypeError, ValueError):  # such as numbers that are none, which JSON cannot write
        text = json.dumps({name: str(value) for name, value in record.items()}, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _append(descriptor: int, line: bytes) -> None:
    """Append a line, or nothing of it: half a line would swallow the next scan's first."""
    end = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise


def _opened(path: str) -> int:
    """Open a file to append to; a line that a kill has cut off is completed by a line break."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK  # which a pipe would wait without
    try:
        descriptor = os.open(path, flags, 0o666)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OutputError(f"{path} is not a regular file: name a file for the log.")
            if os.pread(descriptor, len(START), 0) not in (b"", START):
                raise OutputError(f"{path} exists and is not a log: name another file, or delete it.")
            if found.st_size and os.pread(descriptor, 1, found.st_size - 1) != b"\n":
                _append(descriptor, b"\n")
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name a file elsewhere.") from error
    return descriptor
