"""The boxes of MP4 and MOV files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from deepscan.runtime.video.file_bytes import FileBytes

SMALLEST_BOX, LARGE_HEAD = 8, 16
TO_THE_END, LARGE = 0, 1


class Box(NamedTuple):
    """One box.

    Attributes:
        begin, end: of its content, in bytes of the file; by its own word, so `end` may lie beyond the end of the file.
    """

    kind: bytes
    begin: int
    end: int


def boxes(data: FileBytes, begin: int, end: int) -> Iterator[Box]:
    """Yield the boxes from `begin` to `end`, one after the other, until something is none."""
    while begin + SMALLEST_BOX <= end:
        head = data.at(begin, LARGE_HEAD)
        size, kind, content = int.from_bytes(head[:4]), head[4:8], begin + SMALLEST_BOX
        if size == LARGE:
            size, content = int.from_bytes(head[8:16]), begin + LARGE_HEAD
        elif size == TO_THE_END:
            size = end - begin
        if len(kind) < 4 or begin + size < content:
            return
        yield Box(kind, content, begin + size)
        begin += size


def inside(data: FileBytes, begin: int, end: int, *kinds: bytes) -> Iterator[Box]:
    """Yield the boxes that lie inside boxes of these kinds, one in the other."""
    for box in boxes(data, begin, end):
        if box.kind == kinds[0]:
            if len(kinds) == 1:
                yield box
            else:
                yield from inside(data, box.begin, min(box.end, end), *kinds[1:])
