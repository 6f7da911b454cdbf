"""The elements of Matroska and WebM files: their sizes, and a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from deepscan.runtime.media.file_bytes import FileBytes

HEADER, SEGMENT = 0x1A45DFA3, 0x18538067
TRACKS, TRACK, TRACK_TYPE = 0x1654AE6B, 0xAE, 0x83
ENCODINGS, ENCODING, ENCODING_TYPE = 0x6D80, 0x6240, 0x5033
CLUSTER: Final = 0x1F43B675
SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION, CUES = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC, 0x1C53BB6B
LONGEST_HEAD: Final = 12


class Element(NamedTuple):
    """One element: the identifier of its kind, and offsets of its content in the file.

    `end` is None if its size is unknown, as in live streams.
    """

    identity: int
    begin: int
    end: int | None


def elements(data: FileBytes, begin: int, end: int) -> Iterator[Element]:
    """Yield the elements from `begin` to `end`, up to the first that is damaged."""
    while begin < end:
        element = _element(data, begin)
        if element is None:
            return
        yield element
        if element.end is None:
            return
        begin = element.end


def children(data: FileBytes, parent: Element, identity: int) -> list[Element]:
    """Return the elements of one kind inside another one."""
    return [one for one in elements(data, parent.begin, parent.end or parent.begin) if one.identity == identity]


def has_cues(data: FileBytes) -> bool:
    """Tell whether the first segment has an index, by the elements before its pictures."""
    segment = next((one for one in elements(data, 0, data.size) if one.identity == SEGMENT), None)
    if segment is None:
        return False
    for part in elements(data, segment.begin, segment.end or data.size):
        if part.identity == CUES:
            return True
        if part.identity == CLUSTER:
            return False
        if part.identity == SEEK_HEAD and any(_leads_to_cues(data, segment, one) for one in children(data, part, SEEK)):
            return True
    return False


def _leads_to_cues(data: FileBytes, segment: Element, entry: Element) -> bool:
    if [number(data, one) for one in children(data, entry, SEEK_ID)] != [CUES]:
        return False
    places = [segment.begin + number(data, one) for one in children(data, entry, SEEK_POSITION)]
    found = _element(data, places[0]) if places else None
    return found is not None and found.identity == CUES and (found.end or 0) <= data.size


def number(data: FileBytes, element: Element) -> int:
    """Return the number that an element holds."""
    count = min(8, (element.end or element.begin) - element.begin)
    return int.from_bytes(data.at(element.begin, count))


def _element(data: FileBytes, place: int) -> Element | None:
    head = data.at(place, LONGEST_HEAD)
    id_length = _length(head)
    if not 1 <= id_length <= 4:
        return None
    size_length = _length(head[id_length:])
    begin = id_length + size_length
    if not size_length or len(head) < begin:
        return None
    mask = (1 << (7 * size_length)) - 1
    size = int.from_bytes(head[id_length:begin]) & mask
    end = None if size == mask else place + begin + size
    return Element(int.from_bytes(head[:id_length]), place + begin, end)


def _length(head: bytes) -> int:
    """Return the length in bytes of a number of variable length, by its first byte; 0 if that is invalid."""
    return 9 - head[0].bit_length() if head and head[0] else 0
