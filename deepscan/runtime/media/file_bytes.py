"""Reading single places of an open file, without moving whoever else reads it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from deepscan.runtime.system.regular_files import remember_failure

if TYPE_CHECKING:
    from typing import BinaryIO


class FileBytes:
    """The bytes of an open file.

    Args:
        file: its position stays where it is; a regular file remembers that it could not be read.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def at(self, place: int, count: int) -> bytes:
        """Return at most `count` bytes from `place` on: fewer at the end, none where the file cannot be read."""
        if place >= self.size:  # a file may name places that no system call takes
            return b""
        try:
            return os.pread(self._file.fileno(), min(count, self.size - place), place)
        except OSError as error:
            remember_failure(self._file, error)
            return b""
