"""What the boxes of a HEIF file (HEIC, AVIF) say, without decoding anything: pictures, tracks, colors, crops.

FFmpeg gives each coded item of such a file as a video stream of its own, so that one tile of a photograph passes for
the whole. So it is known from here whether a file holds pictures, before anybody opens it, and FFmpeg is shown a file
without its items where the tracks are to be scanned. Boxes: ISO/IEC 14496-12; items and properties: ISO/IEC 23008-12.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, NamedTuple

# Major brands of files whose pictures are shown although there may be tracks; in others (`msf1`, `hevc`, `avis`, `mp42`)
# the tracks are what is meant (ISO/IEC 23008-12, annexes B and E; AVIF, 6.3).
STILL_BRANDS: Final = frozenset(
    [b"mif1", b"mif2", b"mif3", b"miaf", b"heic", b"heix", b"heim", b"heis", b"avif", b"avci", b"vvic", b"jpeg", b"MiHE"]
)
UNSPECIFIED: Final = 2
MOST_BOXES: Final = 4096
MOST_BRAND_BYTES: Final = 1024
HANDLER_BYTES: Final = 64  # of the start of a meta box, where its kind is said
MOST_META_BYTES: Final = 1 << 24  # a thousand tiles, the most that libheif takes, need a hundredth of it
DERIVED: Final = frozenset([b"grid", b"iovl", b"iden", b"tmap"])
MOST_DERIVATIONS: Final = 4


class Crop(NamedTuple):
    """A clean aperture, in pixels before any rotation: left and top, and the size that is shown."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class HeifFacts:
    """What a file of the ISO base media format says of its pictures.

    Attributes:
        brands: the major one first.
        coding: item type of the primary picture or of its tiles, such as `hvc1` or `av01`; empty if it has none.
        item_type: of the primary picture itself; `grid` and `iovl` are put together from others.
        size: width and height that it declares before cropping and turning; None if it does not.
        crop: what of it is to be shown.
        transfer, primaries: H.273 code points that are declared for it; 2 where none are.
        has_tracks: a `moov` box holds tracks besides, or alone.
        has_motion: a video of a motion photograph is attached.
        hidden: positions of four bytes, and what FFmpeg is to read there, for it to see no items and no alpha planes.
    """

    brands: tuple[bytes, ...]
    coding: bytes = b""
    item_type: bytes = b""
    size: tuple[int, int] | None = None
    crop: Crop | None = None
    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    has_tracks: bool = False
    has_motion: bool = False
    hidden: tuple[tuple[int, bytes], ...] = ()

    @property
    def kind(self) -> str | None:
        """`avif` or `heif` if the file is to be shown as a picture, else None."""
        still = bool(self.coding) or (not self.has_tracks and not STILL_BRANDS.isdisjoint(self.brands))
        if not still or (self.has_tracks and STILL_BRANDS.isdisjoint(self.brands[:1])):
            return None
        return "avif" if self.coding == b"av01" or (not self.coding and b"avif" in self.brands) else "heif"


def heif_facts(file: BinaryIO) -> HeifFacts:
    """Read the boxes of an open file, up to the first that is damaged; of other formats nothing is known.

    Raises:
        OSError: the file cannot be read.
    """
    brands: tuple[bytes, ...] = ()
    meta, hidden = _Meta(), []
    has_tracks = has_motion = False
    for box in _boxes(file, 0, file.seek(0, io.SEEK_END)):
        if box.name == b"ftyp" and not brands:
            data = _read(file, box.start, min(box.end, box.start + MOST_BRAND_BYTES))
            brands = (data[:4], *(data[at : at + 4] for at in range(8, len(data) - 3, 4)))
        elif box.name == b"meta" and b"pict" in _read(file, box.start, min(box.end, box.start + HANDLER_BYTES)):
            hidden.append((box.at + 4, b"free"))
            if not meta.types and box.end - box.start <= MOST_META_BYTES:
                meta = _Meta.parsed(_read(file, box.start, box.end))
        elif box.name == b"moov":
            has_tracks = True
            hidden += [(track.at + 4, b"free") for track in _auxiliary_tracks(file, box)]
        elif box.name == b"mpvd":
            has_motion = True
    return replace(meta.facts(), brands=brands, has_tracks=has_tracks, has_motion=has_motion, hidden=tuple(hidden))


class MaskedFile(io.RawIOBase):
    """An open file of which some bytes read differently."""

    def __init__(self, file: BinaryIO, hidden: tuple[tuple[int, bytes], ...]) -> None:
        self._file, self._hidden = file, hidden
        self.name = file.name

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


class _Meta:
    """The items of one meta box."""

    def __init__(self) -> None:
        self.primary = 0
        self.types: dict[int, bytes] = {}
        self.parts: dict[int, tuple[int, ...]] = {}  # of derived pictures
        self.properties: dict[int, list[tuple[bytes, bytes]]] = {}

    @classmethod
    def parsed(cls, data: bytes) -> _Meta:
        meta = cls()
        try:
            meta._read_boxes(data)
        except (IndexError, ValueError):  # damaged: what was understood so far counts
            pass
        return meta

    def facts(self) -> HeifFacts:
        """Return what is said of the primary picture."""
        coded = self.primary
        for _ in range(MOST_DERIVATIONS):
            if self.types.get(coded) in DERIVED and self.parts.get(coded):
                coded = self.parts[coded][0]
        own = self.properties.get(self.primary, [])
        ispe, clap = dict(own).get(b"ispe", b""), dict(own).get(b"clap")
        size = (_whole(ispe, 4, 4), _whole(ispe, 8, 4)) if len(ispe) >= 12 else None
        colors = [box[4:8] for name, box in own + self.properties.get(coded, []) if name == b"colr" and _is_nclx(box)]
        return HeifFacts(
            brands=(),
            coding=self.types.get(coded, b""),
            item_type=self.types.get(self.primary, b""),
            size=size,
            crop=_crop(clap, size) if clap is not None and size is not None else None,
            primaries=_whole(colors[0], 0, 2) if colors else UNSPECIFIED,
            transfer=_whole(colors[0], 2, 2) if colors else UNSPECIFIED,
        )

    def _read_boxes(self, data: bytes) -> None:
        for name, box in _inner(data, 4):
            if name == b"pitm":
                self.primary = _whole(box, 4, 2 if box[0] == 0 else 4)
            elif name == b"iinf":
                self._read_types(box)
            elif name == b"iref":
                self._read_parts(box)
            elif name == b"iprp":
                self._read_properties(box)

    def _read_types(self, box: bytes) -> None:
        for name, entry in _inner(box, 6 if box[0] == 0 else 8):
            if name == b"infe" and entry[0] >= 2:
                wide = 2 if entry[0] == 2 else 4
                self.types[_whole(entry, 4, wide)] = entry[6 + wide : 10 + wide]

    def _read_parts(self, box: bytes) -> None:
        wide = 2 if box[0] == 0 else 4
        for name, reference in _inner(box, 4):
            if name == b"dimg":
                count = _whole(reference, wide, 2)
                ids = (_whole(reference, wide + 2 + wide * number, wide) for number in range(count))
                self.parts[_whole(reference, 0, wide)] = tuple(ids)

    def _read_properties(self, box: bytes) -> None:
        boxes = list(_inner(box, 0))
        known = [found for name, inside in boxes if name == b"ipco" for found in _inner(inside, 0)]
        for name, inside in boxes:
            if name != b"ipma":
                continue
            wide, long = (2 if inside[0] == 0 else 4), inside[3] & 1
            at = 8
            for _ in range(_whole(inside, 4, 4)):
                item, count = _whole(inside, at, wide), inside[at + wide]
                at += wide + 1
                numbers = [_whole(inside, at + each * (1 + long), 1 + long) for each in range(count)]
                at += count * (1 + long)
                mask = 0x7FFF if long else 0x7F
                self.properties[item] = [
                    known[(number & mask) - 1] for number in numbers if 0 < (number & mask) <= len(known)
                ]


def _is_nclx(colr: bytes) -> bool:
    return colr[:4] == b"nclx" and len(colr) >= 8


def _crop(clap: bytes, size: tuple[int, int]) -> Crop | None:
    """Return the clean aperture in whole pixels (ISO/IEC 14496-12, 12.1.4); None where it makes no sense."""
    if len(clap) < 32:
        return None
    numbers = [_whole(clap, at, 4) for at in range(0, 32, 4)]
    signed = [number - (1 << 32) if number >> 31 else number for number in numbers]
    if not all(signed[1::2]):
        return None
    width, height, right, down = (signed[at] / signed[at + 1] for at in range(0, 8, 2))
    left, top = round((size[0] - width) / 2 + right), round((size[1] - height) / 2 + down)
    crop = Crop(left, top, round(width), round(height))
    inside = 0 <= left and 0 <= top and left + crop.width <= size[0] and top + crop.height <= size[1]
    return crop if inside and crop.width > 0 and crop.height > 0 else None


def _auxiliary_tracks(file: BinaryIO, movie: _Box) -> Iterator[_Box]:
    """Yield the tracks that hold alpha planes or depth maps."""
    for track in _boxes(file, movie.start, movie.end):
        media = [box for box in _boxes(file, track.start, track.end) if box.name == b"mdia"]
        inside = [box for each in media for box in _boxes(file, each.start, each.end) if box.name == b"hdlr"]
        if track.name == b"trak" and any(_read(file, box.start + 8, box.start + 12) == b"auxv" for box in inside):
            yield track


class _Box(NamedTuple):
    """Where a box lies, and its content in it."""

    name: bytes
    at: int
    start: int
    end: int


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """Yield boxes that follow each other, up to the first that is damaged."""
    for _ in range(MOST_BOXES):
        head = _read(file, start, min(start + 16, end))
        if len(head) < 8:
            return
        size, before = _whole(head, 0, 4), 8
        if size == 1 and len(head) == 16:
            size, before = _whole(head, 8, 8), 16
        elif size == 0:
            size = end - start
        if size < before:
            return
        yield _Box(head[4:8], start, start + before, min(start + size, end))
        start += size


def _inner(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each box in `data`."""
    for box in _boxes(io.BytesIO(data), start, len(data)):
        yield box.name, data[box.start : box.end]


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(max(0, end - start))


def _whole(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size])
