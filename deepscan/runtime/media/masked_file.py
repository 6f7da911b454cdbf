"""Open files of which some bytes read differently, so that a library does not see what it would misunderstand."""

from __future__ import annotations

import io
from typing import BinaryIO, cast


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
