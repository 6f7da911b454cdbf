r"""The log of a scan (`--log FILE`): one JSON object on each line, for programs and for `grep`.

Every line has `time` (UTC, ISO 8601, milliseconds) and `event`; then what the event is about, if there is any: `stage`,
`worker`, `file`; then its details. Lines of later scans follow those of earlier ones. Undecodable bytes of a file's
name are escaped as JSON escapes them (a lone surrogate, `\udc80` to `\udcff`), which Python's `json.loads` and
`os.fsencode` turn back into the bytes; the log itself is plain ASCII, so that no name can move a terminal's cursor.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Literal

from deepscan.errors import OutputError
from deepscan.runtime.system.files import refuse_unwritable

Event = Literal[
    "scan_started",
    "file_started",
    "file_finished",
    "file_retried",
    "worker_started",
    "worker_ready",
    "worker_died",
    "limit",
    "interrupted",
    "scan_finished",
]
START: Final = b'{"time":"'  # of every line


class EventLog:
    """Appends events to a file, from any thread; each line reaches the file at once, and whole.

    A disk that fills up, or whatever else goes wrong after the opening, ends the log and not the scan: see `problem`.

    Args:
        path: of the file; what is there already must be a log.

    Raises:
        OutputError: the file cannot be written, or is not a log.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.problem: str | None = None
        self._lock = threading.Lock()
        self._file = _opened(self.path)

    def write(
        self,
        event: Event,
        *,
        stage: str | None = None,
        worker: str | None = None,
        file: str | None = None,
        **details: object,
    ) -> None:
        """Write what happened; raises nothing, and does nothing after the log has ended or was closed.

        Args:
            event: what.
            stage: of the pipeline, where it happened in one.
            worker: the process, as people call it.
            file: path of the input, undecodable bytes as Python's surrogate escapes.
            details: anything JSON has a form for; of everything else its text.
        """
        about = {"stage": stage, "worker": worker, "file": file}
        with self._lock:
            if self._file < 0 or self.problem is not None:
                return
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            given = {name: value for name, value in about.items() if value is not None}
            try:
                _append(self._file, _line({"time": now, "event": event} | given | details))
            except OSError as error:
                self.problem = f"{self.path} cannot be written any more ({error.strerror}): the log ends there."
            except Exception as error:  # a detail without a text: no reason to lose a scan of days
                self.problem = f"{self.path} ends with an event that cannot be written ({type(error).__name__})."

    def close(self) -> None:
        """Close the file; may be called again."""
        with self._lock:
            if self._file >= 0:
                with suppress(OSError):
                    os.close(self._file)
                self._file = -1


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
