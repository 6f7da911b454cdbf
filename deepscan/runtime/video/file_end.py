"""Files that were cut off, by the sizes that they state of their own parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deepscan.runtime.video import ebml
from deepscan.runtime.video.boxes import boxes
from deepscan.runtime.video.file_bytes import FileBytes

if TYPE_CHECKING:
    from typing import BinaryIO

# Whoever writes such a box has written all before it.
BOXES_OF_CONTENT: Final = frozenset([b"mdat", b"moof", b"moov"])
RIFF_HEAD: Final = 8
UNKNOWN_RIFF_SIZES: Final = frozenset([0, 0xFFFFFFFF])
# Some writers count the head of a chunk twice, or a byte of padding that is not there.
RIFF_MISTAKES: Final = 16
ASF_HEAD: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_BROADCAST: Final = 1
ASF_HEAD_BYTES: Final = 1 << 16


def missing_share(file: BinaryIO) -> float | None:
    """Return which share of a file's bytes is missing at its end, or None where nothing says that any is."""
    data = FileBytes(file)
    stated = _stated_size(data)
    return (stated - data.size) / stated if stated is not None and stated > data.size else None


def _stated_size(data: FileBytes) -> int | None:
    """Return how many bytes a file should have at least, where its format says so."""
    head = data.at(0, 16)
    if head[:4] == ebml.HEADER.to_bytes(4):
        return _end_of_segments(data)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _end_of_riff(data)
    if head == ASF_HEAD:
        return _size_in_asf(data)
    return next(
        (box.end for box in boxes(data, 0, data.size) if box.kind in BOXES_OF_CONTENT and box.end > data.size), None
    )


def _end_of_segments(data: FileBytes) -> int | None:
    ends = [one.end for one in ebml.elements(data, 0, data.size) if one.identity == ebml.SEGMENT]
    return ends[-1] if ends else None


def _end_of_riff(data: FileBytes) -> int | None:
    """Return the end of the last chunk; files over a gigabyte have several."""
    place = 0
    while (head := data.at(place, RIFF_HEAD))[:4] == b"RIFF" and len(head) == RIFF_HEAD:
        size = int.from_bytes(head[4:], "little")
        if size in UNKNOWN_RIFF_SIZES:
            return None
        place += RIFF_HEAD + size + size % 2
    return place if place > data.size + RIFF_MISTAKES else None


def _size_in_asf(data: FileBytes) -> int | None:
    head = data.at(0, ASF_HEAD_BYTES)
    place = head.find(ASF_FILE_PROPERTIES)
    content = head[place + 24 : place + 104]
    if place < 0 or len(content) < 80 or int.from_bytes(content[64:68], "little") & ASF_BROADCAST:
        return None
    return int.from_bytes(content[16:24], "little")
