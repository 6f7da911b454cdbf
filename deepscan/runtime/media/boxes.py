"""Boxes of the ISO base media format (ISO/IEC 14496-12), which MP4, MOV, HEIC and AVIF files consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

# Takes an offset and a count; returns at most that many bytes, fewer or none at the end.
ReadAt = Callable[[int, int], bytes]

SMALLEST_BOX, LARGE_HEAD = 8, 16
TO_THE_END, LARGE = 0, 1
KIND_AT: Final = 4
# A day of fragments of a second has a third of them; a hostile file has one for every eight bytes.
MOST_BOXES: Final = 1 << 20


class Box(NamedTuple):
    """One box: its name of four bytes, and offsets of the box itself and of its content.

    They are as stated; `end` may lie beyond the end of the file.
    """

    kind: bytes
    at: int
    begin: int
    end: int

    @property
    def kind_at(self) -> int:
        """Offset of its name."""
        return self.at + KIND_AT


def boxes(read: ReadAt, begin: int, end: int) -> Iterator[Box]:
    """Yield the boxes from `begin` to `end`, one after the other, up to the first that is damaged."""
    for _ in range(MOST_BOXES):
        if begin + SMALLEST_BOX > end:
            return
        head = read(begin, LARGE_HEAD)
        size, before = int.from_bytes(head[:4]), SMALLEST_BOX
        if size == LARGE:
            size, before = int.from_bytes(head[8:]), LARGE_HEAD
        elif size == TO_THE_END:
            size = end - begin
        if len(head) < before or size < before:
            return
        yield Box(head[4:8], begin, begin + before, begin + size)
        begin += size


def inside(read: ReadAt, begin: int, end: int, *kinds: bytes) -> Iterator[Box]:
    """Yield the boxes at a path of nested kinds."""
    for box in boxes(read, begin, end):
        if box.kind == kinds[0]:
            if len(kinds) == 1:
                yield box
            else:
                yield from inside(read, box.begin, min(box.end, end), *kinds[1:])


def inner_boxes(data: bytes, begin: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each box in `data`."""
    for box in boxes(lambda place, count: data[place : place + count], begin, len(data)):
        yield box.kind, data[box.begin : box.end]
