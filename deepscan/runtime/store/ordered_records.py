"""Records that are finished in any order and wanted in that of the inputs, kept on the disk meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any, Self

from deepscan.errors import OutputError


class OrderedRecords:
    """Records on disk, added in any order and read in the order of their indices."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[int, tuple[int, int]] = {}
        self._next = 0

    def add(self, index: int, record: dict[str, Any]) -> None:
        """Keep a record.

        Raises:
            OutputError: the temporary folder is full.
        """
        line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
        try:
            self._places[index] = (self._file.seek(0, os.SEEK_END), len(line))
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"Results cannot be written to {tempfile.gettempdir()}, where they wait for those before them "
                f"({error.strerror}): make room there, or use --out FILE."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk closing fails as writing did, and nobody needs the rest
            self._file.close()

    def ready(self) -> Iterator[dict[str, Any]]:
        """Yield each record once, as soon as all those with lower indices have been yielded."""
        while self._next in self._places:
            self._next += 1
            yield self._record(self._next - 1)

    def remaining(self) -> Iterator[dict[str, Any]]:
        """Yield the records that `ready` has not, in order, though others may be missing between them."""
        for index in sorted(place for place in self._places if place >= self._next):
            yield self._record(index)

    def _record(self, index: int) -> dict[str, Any]:
        start, length = self._places[index]
        self._file.seek(start)
        record: dict[str, Any] = json.loads(self._file.read(length).decode("ascii"))
        return record
