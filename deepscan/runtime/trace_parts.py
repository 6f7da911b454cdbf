"""The trace of a scan, whether one process writes it or several."""

from __future__ import annotations

import os

from deepscan.runtime.trace import TraceWriter, joined


class Trace:
    """A file that gets one trace of a whole scan.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._writer: TraceWriter | None = None
        self._parts: list[str] = []

    def writer(self) -> TraceWriter:
        """Return what writes the file, where this process is the only one.

        Raises:
            OutputError: it cannot be written.
        """
        self._writer = self._opened()
        return self._writer

    def part(self) -> str:
        """Return the path of a file for one more process; `finish` joins them.

        Raises:
            OutputError: the file that they are joined to cannot be written.
        """
        if not self._parts:
            self._opened().close()  # said now and not after days
        self._parts.append(f"{self._path}.part{len(self._parts) + 1}")
        return self._parts[-1]

    def _opened(self) -> TraceWriter:
        return TraceWriter(self._path, pid=os.getpid(), name="deepscan")

    def finish(self) -> str | None:
        """Close the file, or make it of its parts; return what is missing in it, for people."""
        if self._writer is not None:
            self._writer.close()
            return self._writer.problem
        there = [part for part in self._parts if os.path.exists(part)]
        if there:
            joined(there, self._path)
        return None
