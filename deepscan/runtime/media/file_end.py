"""Detection of files that were cut off or joined, by the sizes that they state of their parts."""

from __future__ import annotations

from typing import BinaryIO, Final, NamedTuple

from deepscan.runtime.media import ebml
from deepscan.runtime.media.boxes import boxes
from deepscan.runtime.media.file_bytes import FileBytes

# A writer of such a box has written everything before it.
BOXES_OF_CONTENT: Final = frozenset([b"mdat", b"moof", b"moov"])
AVI_FORM: Final = b"AVI "
RIFF_HEAD, RIFF_SIZE_AT = 12, 8
UNKNOWN_RIFF_SIZES: Final = frozenset([0, 0xFFFFFFFF])
# Some writers count the head of a chunk twice, or a byte of padding that is not there.
RIFF_MISTAKES: Final = 16
ASF_HEAD: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_BROADCAST: Final = 1
ASF_HEAD_BYTES: Final = 1 << 16


class FileEnd(NamedTuple):
    """The end of a file, by the stated sizes of its parts.

    Attributes:
        missing_share: share of its stated bytes that are missing at its end; None if none are known to be missing.
        joined: further files of the same kind follow the first one, and FFmpeg goes on with them.
        ignored: a further file follows, and FFmpeg does not read it.
    """

    size: int
    missing_share: float | None = None
    joined: bool = False
    ignored: bool = False

    @property
    def is_odd(self) -> bool:
        """Whether the file does not end where its first part says."""
        return self.missing_share is not None or self.joined or self.ignored


def file_end(file: BinaryIO) -> FileEnd:
    """Compare the stated sizes of a file's parts with its size."""
    data = FileBytes(file)
    head = data.at(0, 16)
    joined = ignored = False
    if head[:4] == ebml.HEADER.to_bytes(4):
        ends = [one.end for one in ebml.elements(data, 0, data.size) if one.identity == ebml.SEGMENT]
        stated, joined = (ends[-1] if ends else None), len(ends) > 1
    elif head[:4] == b"RIFF" and head[8:12] == AVI_FORM:
        stated, joined = _end_of_riff(data)
    elif head == ASF_HEAD:
        stated = _size_in_asf(data)
        ignored = stated is not None and data.at(stated, len(ASF_HEAD)) == ASF_HEAD
    else:
        found = [box for box in boxes(data.at, 0, data.size) if box.kind in BOXES_OF_CONTENT]
        stated = found[-1].end if found else None
        ignored = sum(box.kind == b"moov" for box in found) > 1
    missing = None if stated is None or stated <= data.size else (stated - data.size) / stated
    return FileEnd(data.size, missing, joined, ignored)


def _end_of_riff(data: FileBytes) -> tuple[int | None, bool]:
    """Return the end of the last chunk, as files over a gigabyte have several, and whether files are joined."""
    place = files = 0
    while (head := data.at(place, RIFF_HEAD))[:4] == b"RIFF" and len(head) == RIFF_HEAD:
        size = int.from_bytes(head[4:8], "little")
        files += head[8:] == AVI_FORM
        if size in UNKNOWN_RIFF_SIZES:
            return None, files > 1
        place += RIFF_SIZE_AT + size + size % 2
    return (place if place > data.size + RIFF_MISTAKES else None), files > 1


def _size_in_asf(data: FileBytes) -> int | None:
    head = data.at(0, ASF_HEAD_BYTES)
    place = head.find(ASF_FILE_PROPERTIES)
    content = head[place + 24 : place + 104]
    if place < 0 or len(content) < 80 or int.from_bytes(content[64:68], "little") & ASF_BROADCAST:
        return None
    return int.from_bytes(content[16:24], "little")
