"""Bytes of open files: read at an offset without moving the position, or masked for a library that reads them."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, cast

from deepscan.runtime.system.regular_files import remember_failure


class FileBytes:
    """The bytes of an open file, whose position stays as it is; a regular file records a failure to read it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def at(self, place: int, count: int) -> bytes:
        """Return at most `count` bytes from offset `place`: fewer at the end, none if the file cannot be read."""
        if place >= self.size:  # a file may state offsets that no system call accepts
            return b""
        try:
            return os.pread(self._file.fileno(), min(count, self.size - place), place)
        except OSError as error:
            remember_failure(self._file, error)
            return b""


def without_boxes(file: BinaryIO, kinds_at: tuple[int, ...]) -> BinaryIO:
    """Return an open file in which boxes, given by the positions of their kinds, are free space; see `masked`."""
    return masked(file, tuple((at, b"free") for at in kinds_at))


def masked(file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> BinaryIO:
    """Return an open file with other bytes at some positions; closing it closes the underlying file."""
    return cast("BinaryIO", _MaskedFile(file, hidden))


class _MaskedFile:
    def __init__(self, file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> None:
        self._file, self._hidden = file, hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        for at, instead in self._hidden:
            first, last = max(at, start), min(at + len(instead), start + len(data))
            if first < last:
                data = data[: first - start] + instead[first - at : last - at] + data[last - start :]
        return data
