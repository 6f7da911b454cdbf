"""Reading single places of an open file, without moving whoever else reads it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO


class FileBytes:
    """The bytes of an open file.

    Args:
        file: its position stays where it is.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._number = file.fileno()
        self.size = os.fstat(self._number).st_size

    def at(self, place: int, count: int) -> bytes:
        """Return at most `count` bytes from `place` on: fewer at the end, none where the file cannot be read."""
        try:
            return os.pread(self._number, count, place)
        except (OSError, OverflowError, ValueError):
            return b""
