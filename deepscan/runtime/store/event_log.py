r"""Log of a scan (`--log FILE`): one JSON object per line, for programs and for `grep`.

Every line has `time` (UTC, ISO 8601, milliseconds) and `event`; then the subjects of the event, if any (`stage`,
`worker`, `file`); then its details. Later scans append to the log. Undecodable bytes of a file name are JSON escapes of
lone surrogates, `\udc80` to `\udcff`, which Python's `json.loads` and `os.fsencode` turn back into the bytes. The log
is plain ASCII, so that no name can move a terminal's cursor.

An event is a record of Python's `logging` with an attribute `event`: a dictionary that has the name under `event`. For
another form of the log, add another handler to the logger `deepscan`.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from typing import Final

from deepscan.errors import OutputError
from deepscan.runtime.system.files import refuse_unwritable

START: Final = b'{"time":"'  # of every line
ABOUT: Final = ("event", "stage", "worker", "file")


class EventLog(logging.Handler):
    """Log handler that appends the events to a file; each line is written at once, and as a whole.

    A full disk, or any other failure after the opening, ends the log but not the scan; see `problem`.

    Attributes:
        problem: reason why the log ended early; None if it did not.

    Raises:
        OutputError: the file cannot be written or is not a log.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(logging.DEBUG)
        self.path = os.fspath(path)
        self.problem: str | None = None
        self._file = _opened(self.path)

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event; never raise, and do nothing once the log has ended or is closed."""
        event = getattr(record, "event", None)
        if not isinstance(event, dict) or self._file.closed or self.problem is not None:
            return
        try:
            now = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            about = {name: event[name] for name in ABOUT if event.get(name) is not None}
            details = {name: value for name, value in event.items() if name not in ABOUT}
            _append(self._file, _line({"time": now} | about | details))
        except OSError as error:
            self.problem = f"{self.path} cannot be written any more ({error.strerror}): the log ends there."
        except Exception as error:  # an event that cannot be turned into text must not end a long scan
            self.problem = f"{self.path} ends with an event that cannot be written ({type(error).__name__})."

    def close(self) -> None:
        """Close the file; may be called again."""
        with suppress(OSError):
            self._file.close()
        super().close()


def _line(record: dict[str, object]) -> bytes:
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False, default=str)
    except (TypeError, ValueError):  # such as NaN, which JSON does not have
        text = json.dumps({name: str(value) for name, value in record.items()}, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def _append(file: FileIO, line: bytes) -> None:
    """Append a whole line or nothing; a part of a line would spoil the first line of the next scan."""
    end = os.fstat(file.fileno()).st_size
    try:
        while line:
            line = line[file.write(line) :]
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


def _opened(path: str) -> FileIO:
    """Open a file to append to; a line that a kill cut off gets its line break."""
    refuse_unwritable(path, begins=START, kind="log")
    try:
        file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by `EventLog.close`
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            _append(file, b"\n")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name a file elsewhere.") from error
    return file
