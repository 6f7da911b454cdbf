"""Boxes of the ISO base media format (ISO/IEC 14496-12), which MP4, MOV, HEIC and AVIF files consist of."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple, cast

MOST_BOXES: Final = 4096
NAME_AT: Final = 4


class Box(NamedTuple):
    """Where a box lies, and its content in it."""

    name: bytes
    at: int
    start: int
    end: int

    @property
    def name_at(self) -> int:
        """Where its name is written."""
        return self.at + NAME_AT


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """Yield boxes that follow each other, up to the first that is damaged."""
    for _ in range(MOST_BOXES):
        if start >= end:
            return
        head = read_bytes(file, start, min(start + 16, end))
        if len(head) < 8:
            return
        size, before = whole(head, 0, 4), 8
        if size == 1 and len(head) == 16:
            size, before = whole(head, 8, 8), 16
        elif size == 0:
            size = end - start
        if size < before:
            return
        yield Box(head[4:8], start, start + before, min(start + size, end))
        start += size


def inner_boxes(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each box in `data`."""
    for box in boxes(io.BytesIO(data), start, len(data)):
        yield box.name, data[box.start : box.end]


def read_bytes(file: BinaryIO, start: int, end: int) -> bytes:
    """Return bytes of an open file, fewer where it ends before."""
    file.seek(start)
    return file.read(max(0, end - start))


def whole(data: bytes, at: int, size: int) -> int:
    """Return an unsigned big-endian number.

    Raises:
        IndexError: there is none.
    """
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size])


def without_boxes(file: BinaryIO, names_at: tuple[int, ...]) -> BinaryIO:
    """Return an open file in which boxes, given by where their names are, are free space; see `masked`."""
    return masked(file, tuple((at, b"free") for at in names_at))


def masked(file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> BinaryIO:
    """Return an open file whose bytes at some positions read differently; closed, it closes the one underneath."""
    return cast("BinaryIO", _MaskedFile(file, hidden))


class _MaskedFile(io.RawIOBase):
    def __init__(self, file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> None:
        self._file, self._hidden = file, hidden
        self.name = getattr(file, "name", "")

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
