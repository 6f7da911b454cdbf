"""Traces: a record of what each thread did when, for chrome://tracing and https://ui.perfetto.dev.

The format is the object form of Chrome's trace event format: {"traceEvents": [...]}, one event per line. Phase "X" is
something that took time, "C" a counter, "M" the name of a process or a thread; times are microseconds. Every write ends
with the closing brackets, which the next one overwrites. So the file is valid JSON at any time; a kill loses only what
is still in the buffer.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from deepscan.errors import OutputError
from deepscan.runtime.pipeline.pipeline import PipelineObserver, Wait
from deepscan.runtime.pipeline.queues import BoundedQueue
from deepscan.runtime.system.files import refuse_unwritable

Value: TypeAlias = str | int | float

HEAD: Final = b'{"displayTimeUnit":"ms","traceEvents":[\n'
TAIL: Final = b"\n]}\n"
BUFFER_BYTES: Final = 1 << 18
# Viewers cannot load larger files, and a long scan must not fill the disk.
MOST_BYTES: Final = 1 << 30
# Undecodable bytes of file names, which JSON cannot hold.
SURROGATES: Final = re.compile("[\ud800-\udfff]")
# Shorter waits get no event of their own; the details of a call have the sum of its waits.
SHORTEST_SECONDS: Final = 100e-6
# Least time between two values of the size of a queue.
COUNTER_SECONDS: Final = 0.01


class TraceWriter:
    """Writes the events of one process to a file, from any thread, with a bounded buffer.

    Times are `time.perf_counter()`, which on Linux is the same clock in all processes. A full disk, or a file that is
    larger than `most_bytes`, ends the trace but not the scan; see `problem`. Only an older trace is replaced. `pid` is
    unique among the writers of a trace; `name` is that of the process in viewers.

    Raises:
        OutputError: the file cannot be written, or exists and is not a trace.
    """

    def __init__(self, path: str | os.PathLike[str], *, pid: int, name: str, most_bytes: int = MOST_BYTES) -> None:
        self.path = os.fspath(path)
        self.problem: str | None = None
        self._pid = pid
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._tracks: dict[str, int] = {}
        self._file = _opened(self.path)
        self._end = len(HEAD)
        self._write({"ph": "M", "name": "process_name", "args": {"name": _text(name)}})
        self.flush()

    def track(self) -> int:
        """Return the number of the calling thread's track in the trace."""
        name = threading.current_thread().name
        with self._lock:
            known = self._tracks.get(name)
            if known is not None:
                return known
            number = self._tracks[name] = len(self._tracks) + 1
        self._write({"ph": "M", "name": "thread_name", "tid": number, "args": {"name": _text(name)}})
        self._write({"ph": "M", "name": "thread_sort_index", "tid": number, "args": {"sort_index": number}})
        return number

    def took(self, name: str, category: str, started: float, seconds: float, **details: Value) -> None:
        """Write an event of the calling thread that began at `started`, a time of `time.perf_counter()`.

        Viewers can select events by their category, and show the details; undecodable bytes in text are replaced.
        """
        args = {key: _text(value) if isinstance(value, str) else value for key, value in details.items()}
        times = {"ts": _microseconds(started), "dur": _microseconds(seconds)}
        self._write({"ph": "X", "name": name, "cat": category, "tid": self.track(), **times, "args": args})

    def counted(self, name: str, at: float, values: Mapping[str, int]) -> None:
        """Write the values of a counter at a time of `time.perf_counter()`; viewers stack several values."""
        self._write({"ph": "C", "name": name, "tid": 0, "ts": _microseconds(at), "args": dict(values)})

    def flush(self) -> None:
        """Write the buffer."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Write the buffer and close the file; further calls do nothing."""
        with self._lock:
            if self._file >= 0:
                self._flush()
                os.close(self._file)
                self._file = -1

    def _write(self, event: dict[str, object]) -> None:
        line = json.dumps({"pid": self._pid, **event}, separators=(",", ":"), allow_nan=False).encode()
        with self._lock:
            self._waiting.append(line)
            self._waiting_bytes += len(line) + 2
            if self._waiting_bytes >= BUFFER_BYTES:
                self._flush()

    def _flush(self) -> None:
        text = b",\n".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        if not text or self._file < 0 or self.problem is not None:
            return
        if self._end > len(HEAD):
            text = b",\n" + text
        if self._end + len(text) > self._most_bytes:
            self.problem = f"{self.path} has reached {self._most_bytes} bytes: the trace ends there, the scan does not."
            return
        try:
            _write_at(self._file, text + TAIL, self._end)
        except OSError as error:
            self.problem = f"{self.path} cannot be written any more ({error.strerror}): the trace ends there."
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
                _write_at(self._file, TAIL, self._end)
            return
        self._end += len(text)


def joined(parts: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Join the traces that closed or killed `TraceWriter`s have written, and delete them; missing parts are ignored.

    Raises:
        OutputError: the file cannot be written, or exists and is not a trace; the parts are kept.
    """
    target = os.fspath(path)
    descriptor = _opened(target)
    separator = b""
    try:
        with open(descriptor, "r+b") as file:
            file.seek(len(HEAD))
            for part in filter(os.path.exists, parts):
                with open(part, "rb") as source:
                    for line in source:
                        event = line.rstrip(b",\n")
                        if event[:1] == b"{" and event[-1:] == b"}" and line != HEAD:
                            file.write(separator + event)
                            separator = b",\n"
            file.write(TAIL)
            file.truncate()
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror}): the parts beside it are kept.") from error
    for part in parts:
        Path(part).unlink(missing_ok=True)


class PipelineTrace(PipelineObserver):
    """Writes the events of a pipeline's threads; the caller closes the writer."""

    def __init__(self, writer: TraceWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._counted: dict[str, float] = {}

    def waited(self, wait: Wait, seconds: float) -> None:
        """See `PipelineObserver.waited`."""
        if seconds >= SHORTEST_SECONDS:
            self._writer.took(wait, wait, time.perf_counter() - seconds, seconds)

    def called(self, name: str, started: float, *, waited: float, blocked: float, items: int, subject: str) -> None:
        """See `PipelineObserver.called`."""
        elapsed = time.perf_counter() - started
        spent = {"busy_ms": elapsed - blocked, "waiting_ms": waited, "blocked_ms": blocked}
        details = {name: round(1000 * seconds, 3) for name, seconds in spent.items()}
        path = {"path": subject} if subject else {}
        self._writer.took(name, "busy", started, elapsed, items=items, **details, **path)

    def queue_changed(self, name: str, queue: BoundedQueue[Any]) -> None:
        """Write the size of a queue, at most every `COUNTER_SECONDS`."""
        now = time.perf_counter()
        with self._lock:
            if now - self._counted.get(name, -math.inf) < COUNTER_SECONDS:
                return
            self._counted[name] = now
        items, held_bytes = queue.size()
        self._writer.counted(f"{name}: bytes", now, {"bytes": held_bytes})
        self._writer.counted(f"{name}: items", now, {"items": items})

    def ended(self) -> None:
        """Write the buffer."""
        self._writer.flush()


class Trace:
    """Trace of a scan in one file, of which each process writes a part beside it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._parts: list[str] = []

    def check(self) -> None:
        """Create the file, so that errors are found before the scan; see `TraceWriter`."""
        TraceWriter(self._path, pid=os.getpid(), name="deepscan").close()

    def part(self) -> str:
        """Return the path of the part of one more process."""
        self._parts.append(f"{self._path}.part{len(self._parts) + 1}")
        return self._parts[-1]

    def finish(self) -> None:
        """Join the parts."""
        joined(self._parts, self._path)


def _opened(path: str) -> int:
    """Open a file for a new trace, valid from the start."""
    refuse_unwritable(path, begins=HEAD, kind="trace")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        _write_at(descriptor, HEAD + TAIL, 0)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): name a file elsewhere.") from error
    return descriptor


def _write_at(descriptor: int, text: bytes, offset: int) -> None:
    while text:
        written = os.pwrite(descriptor, text, offset)
        text, offset = text[written:], offset + written


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _text(value: str) -> str:
    return SURROGATES.sub("\ufffd", value)
