"""The trace of a scan, of which each process writes a part."""

from __future__ import annotations

import os

from deepscan.runtime.pipeline.trace import HEAD, TraceWriter, joined
from deepscan.runtime.system.files import refuse_unwritable


class Trace:
    """A file that gets one trace of a whole scan.

    Args:
        path: of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._parts: list[str] = []

    def check(self) -> None:
        """Begin the file, so that what prevents that is said now and not after days.

        Raises:
            OutputError: it cannot be written, or is something else than a trace.
        """
        TraceWriter(self._path, pid=os.getpid(), name="deepscan").close()

    def check_only(self) -> None:
        """Say what prevents the file, without writing anything.

        Raises:
            OutputError: it cannot be written, or is something else than a trace.
        """
        refuse_unwritable(self._path, begins=HEAD, kind="trace")

    def part(self) -> str:
        """Return the path of a file for one more process; `finish` joins them."""
        self._parts.append(f"{self._path}.part{len(self._parts) + 1}")
        return self._parts[-1]

    def finish(self) -> None:
        """Join what the processes have written."""
        there = [part for part in self._parts if os.path.exists(part)]
        if there:
            joined(there, self._path)
