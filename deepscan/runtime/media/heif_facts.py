"""What the boxes of a HEIF file (HEIC, AVIF) say, without decoding anything: pictures, tracks, colors, crops.

FFmpeg presents each coded item of such a file as a video stream, so a single tile would pass for the whole photograph.
This module decides whether a file is a picture before anything opens it; where the tracks are scanned, the items are
hidden from FFmpeg. Boxes: ISO/IEC 14496-12; items and properties: ISO/IEC 23008-12.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Final, NamedTuple

from deepscan.runtime.media.boxes import Box, ReadAt, boxes, inner_boxes, inside

# Major brands of files that are shown as pictures even if they have tracks; those of other brands (`msf1`, `hevc`,
# `avis`, `mp42`) are videos (ISO/IEC 23008-12, annexes B and E; AVIF, 6.3).
STILL_BRANDS: Final = frozenset(b"mif1 mif2 mif3 miaf heic heix heim heis avif avci vvic jpeg MiHE".split())
UNSPECIFIED: Final = 2
MOST_BRAND_BYTES: Final = 1024
HANDLER_BYTES: Final = 64  # at the start of a meta box, including its handler type
MOST_META_BYTES: Final = 1 << 24  # libheif's limit of a thousand tiles needs a hundredth of it
DERIVED: Final = frozenset([b"grid", b"iovl", b"iden", b"tmap"])
MOST_DERIVATIONS: Final = 4


class Crop(NamedTuple):
    """Clean aperture, in pixels before any rotation: left, top, and the size that is shown."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class HeifFacts:
    """What a file of the ISO base media format says about its pictures.

    Attributes:
        brands: the major one first.
        coding: item type of the primary picture or of its tiles, such as `hvc1` or `av01`; empty without a picture.
        item_type: item type of the primary picture itself; `grid` and `iovl` are composed of other items.
        size: declared width and height before cropping and rotation.
        crop: visible part of the picture; None for all of it.
        is_whole: whether all parts of the primary picture are listed and lie inside the file.
        is_encrypted: whether any of these parts is protected.
        transfer, primaries: declared H.273 code points.
        movies: positions of the names of boxes that hold tracks.
        has_motion: whether the video of a motion photograph is attached.
        others: positions of the names of boxes to hide from FFmpeg: items and alpha planes.
    """

    brands: tuple[bytes, ...]
    coding: bytes = b""
    item_type: bytes = b""
    size: tuple[int, int] | None = None
    crop: Crop | None = None
    is_whole: bool = True
    is_encrypted: bool = False
    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    movies: tuple[int, ...] = ()
    has_motion: bool = False
    others: tuple[int, ...] = ()

    @property
    def kind(self) -> str | None:
        """`avif` or `heif` if the file is a picture, otherwise None."""
        still = bool(self.coding) or (not self.movies and not STILL_BRANDS.isdisjoint(self.brands))
        if not still or (self.movies and STILL_BRANDS.isdisjoint(self.brands[:1])):
            return None
        return "avif" if self.coding == b"av01" or (not self.coding and b"avif" in self.brands) else "heif"


def heif_facts(file: BinaryIO) -> HeifFacts:
    """Read the boxes of an open file up to the first damaged one; a file of another format gives empty facts.

    Raises:
        OSError: the file cannot be read.
    """
    brands: tuple[bytes, ...] = ()
    meta, movies, others, has_motion = _Meta(), [], [], False
    size = file.seek(0, io.SEEK_END)
    read = partial(_read_at, file, size)
    for box in boxes(read, 0, size):
        if box.kind == b"ftyp" and not brands:
            data = read(box.begin, min(box.end - box.begin, MOST_BRAND_BYTES))
            brands = (data[:4], *(data[at : at + 4] for at in range(8, len(data) - 3, 4)))
        elif box.kind == b"meta" and b"pict" in read(box.begin, min(box.end - box.begin, HANDLER_BYTES)):
            others.append(box.kind_at)
            if not meta.types and min(box.end, size) - box.begin <= MOST_META_BYTES:
                meta = _Meta(read(box.begin, box.end - box.begin))
        elif box.kind == b"moov":
            movies.append(box.kind_at)
            tracks = (track for track in boxes(read, box.begin, box.end) if track.kind == b"trak")
            others += [track.kind_at for track in tracks if _is_auxiliary(read, track)]
        elif box.kind == b"mpvd":
            has_motion = True
    facts = meta.facts(size)
    return replace(facts, brands=brands, movies=tuple(movies), has_motion=has_motion, others=tuple(others))


class _Meta:
    """The items of one meta box, of which a damaged one gives those before the damage."""

    def __init__(self, data: bytes = b"") -> None:
        self.primary = 0
        self.types: dict[int, bytes] = {}
        self.protected: set[int] = set()
        self.parts: dict[int, tuple[int, ...]] = {}  # the items that a derived picture is composed of
        self.properties: dict[int, list[tuple[bytes, bytes]]] = {}
        self.ends: dict[int, int] = {}  # offsets in the file
        with suppress(IndexError, ValueError):
            self._read_boxes(data)

    def facts(self, file_bytes: int) -> HeifFacts:
        """Return the facts about the primary picture of a file of `file_bytes` bytes."""
        coded = self.primary
        for _ in range(MOST_DERIVATIONS):
            if self.types.get(coded) in DERIVED and self.parts.get(coded):
                coded = self.parts[coded][0]
        own = self.properties.get(self.primary, [])
        ispe, clap = dict(own).get(b"ispe", b""), dict(own).get(b"clap")
        size = (_whole(ispe, 4, 4), _whole(ispe, 8, 4)) if len(ispe) >= 12 else None
        boxes_of_color = [box for name, box in own + self.properties.get(coded, []) if name == b"colr"]
        colors = [box[4:8] for box in boxes_of_color if box[:4] == b"nclx" and len(box) >= 8]
        return HeifFacts(
            brands=(),
            coding=self.types.get(coded, b""),
            item_type=self.types.get(self.primary, b""),
            size=size,
            crop=_crop(clap, size) if clap is not None and size is not None else None,
            is_whole=all(item in self.types and self.ends.get(item, 0) <= file_bytes for item in self._needed()),
            is_encrypted=not self.protected.isdisjoint(self._needed()),
            primaries=_whole(colors[0], 0, 2) if colors else UNSPECIFIED,
            transfer=_whole(colors[0], 2, 2) if colors else UNSPECIFIED,
        )

    def _needed(self) -> set[int]:
        """Return the primary item and all items that it is composed of."""
        needed, new = set[int](), {self.primary} if self.types else set()
        while new:
            needed |= new
            new = {part for item in new for part in self.parts.get(item, ())} - needed
        return needed

    def _read_boxes(self, data: bytes) -> None:
        for name, box in inner_boxes(data, 4):
            if name == b"pitm":
                self.primary = _whole(box, 4, 2 if box[0] == 0 else 4)
            elif name == b"iinf":
                self._read_types(box)
            elif name == b"iloc":
                self._read_places(box)
            elif name == b"iref":
                self._read_parts(box)
            elif name == b"iprp":
                self._read_properties(box)

    def _read_types(self, box: bytes) -> None:
        for name, entry in inner_boxes(box, 6 if box[0] == 0 else 8):
            if name == b"infe" and entry[0] >= 2:
                wide = 2 if entry[0] == 2 else 4
                item = _whole(entry, 4, wide)
                self.types[item] = entry[6 + wide : 10 + wide]
                if _whole(entry, 4 + wide, 2):
                    self.protected.add(item)

    def _read_places(self, box: bytes) -> None:
        version, reader = box[0], _Numbers(box, 4)
        offset_size, length_size = divmod(reader.next(1), 16)
        base_size, index_size = divmod(reader.next(1), 16)
        wide = 2 if version < 2 else 4
        for _ in range(reader.next(wide)):
            item, in_file = reader.next(wide), version == 0 or reader.next(2) & 15 == 0
            reader.next(2)
            base = reader.next(base_size)
            for _ in range(reader.next(2)):
                reader.next(index_size if version else 0)
                end = base + reader.next(offset_size) + reader.next(length_size)
                if in_file:
                    self.ends[item] = max(end, self.ends.get(item, 0))

    def _read_parts(self, box: bytes) -> None:
        wide = 2 if box[0] == 0 else 4
        for name, reference in inner_boxes(box, 4):
            if name == b"dimg":
                count = _whole(reference, wide, 2)
                ids = (_whole(reference, wide + 2 + wide * number, wide) for number in range(count))
                self.parts[_whole(reference, 0, wide)] = tuple(ids)

    def _read_properties(self, box: bytes) -> None:
        found = list(inner_boxes(box, 0))
        known = [each for name, content in found if name == b"ipco" for each in inner_boxes(content, 0)]
        for name, content in found:
            if name != b"ipma":
                continue
            wide, long = (2 if content[0] == 0 else 4), content[3] & 1
            at = 8
            for _ in range(_whole(content, 4, 4)):
                item, count = _whole(content, at, wide), content[at + wide]
                at += wide + 1
                numbers = [_whole(content, at + each * (1 + long), 1 + long) for each in range(count)]
                at += count * (1 + long)
                mask = 0x7FFF if long else 0x7F
                self.properties[item] = [
                    known[(number & mask) - 1] for number in numbers if 0 < (number & mask) <= len(known)
                ]


class _Numbers:
    """Reader of consecutive big-endian integers."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def next(self, size: int) -> int:
        self._at += size
        return _whole(self._data, self._at - size, size)


def _crop(clap: bytes, size: tuple[int, int]) -> Crop | None:
    """Return the clean aperture in whole pixels (ISO/IEC 14496-12, 12.1.4); None if it is invalid."""
    if len(clap) < 32:
        return None
    numbers = [_whole(clap, at, 4) for at in range(0, 32, 4)]
    signed = [number - (1 << 32) if number >> 31 else number for number in numbers]
    if not all(signed[1::2]):
        return None
    width, height, right, down = (signed[at] / signed[at + 1] for at in range(0, 8, 2))
    left, top = round((size[0] - width) / 2 + right), round((size[1] - height) / 2 + down)
    crop = Crop(left, top, round(width), round(height))
    inside = left >= 0 and top >= 0 and left + crop.width <= size[0] and top + crop.height <= size[1]
    return crop if inside and crop.width > 0 and crop.height > 0 else None


def _is_auxiliary(read: ReadAt, track: Box) -> bool:
    """Tell whether a track holds an alpha plane or a depth map."""
    handlers = inside(read, track.begin, track.end, b"mdia", b"hdlr")
    return any(read(handler.begin + 8, 4) == b"auxv" for handler in handlers)


def _read_at(file: BinaryIO, size: int, place: int, count: int) -> bytes:
    if place >= size:  # a box may state a size that `seek` does not accept
        return b""
    file.seek(place)
    return file.read(min(count, size - place))


def _whole(data: bytes, at: int, size: int) -> int:
    """Return the unsigned big-endian number of `size` bytes at `at`; an `IndexError` if the data ends before."""
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size])
