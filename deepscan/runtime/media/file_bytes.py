"""Bytes of open files: read at single places without moving the position, or hidden from a library that reads them."""

from __future__ import annotations

import io
import os
from typing import BinaryIO, cast

from deepscan.runtime.system.regular_files import remember_failure


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


def without_boxes(file: BinaryIO, kinds_at: tuple[int, ...]) -> BinaryIO:
    """Return an open file in which boxes, given by where their kinds are written, are free space; see `masked`."""
    return masked(file, tuple((at, b"free") for at in kinds_at))


def masked(file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> BinaryIO:
    """Return an open file whose bytes at some positions read differently; closed, it closes the one underneath."""
    return cast("BinaryIO", _MaskedFile(file, hidden))


class _MaskedFile(io.RawIOBase):
    def __init__(self, file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> None:
        self._file, self._hidden = file, hidden
        self.name = getattr(file, "name", "")
        self.raw = getattr(file, "raw", file)  # remembers failures, as of any buffered file

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the number of the file underneath."""
        return self._file.fileno()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the file underneath."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the file underneath."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Read from the file underneath, with the masked bytes in their places."""
        start = self._file.tell()
        data = self._file.read(size)
        for at, instead in self._hidden:
            first, last = max(at, start), min(at + len(instead), start + len(data))
            if first < last:
                data = data[: first - start] + instead[first - at : last - at] + data[last - start :]
        return data

    def close(self) -> None:
        """Close the file underneath."""
        self._file.close()
        super().close()
