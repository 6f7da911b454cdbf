"""HEIF files put together box by box, as phones and cameras write them: grids, overlays, turned, mirrored, cropped."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from deepscan.runtime.media.boxes import inner_boxes

Pixels = NDArray[np.uint8]
HIDDEN = 1


def box(name: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def full_box(name: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *content)


@dataclass
class Item:
    """One item: its type, its data, its property boxes, and the items that it is made of or belongs to."""

    kind: bytes
    data: bytes
    properties: Sequence[bytes] = ()
    refers: Mapping[bytes, Sequence[int]] = field(default_factory=dict)
    hidden: bool = False
    protection: int = 0


def heif_file(
    items: Sequence[Item], *, primary: int = 1, brands: Sequence[bytes] = (b"heic", b"mif1"), after: bytes = b""
) -> bytes:
    """Return a file of these items, numbered from 1; `after` follows the last box."""
    ftyp = box(b"ftyp", brands[0], bytes(4), *brands)
    meta = _meta(items, primary, 0)
    start = len(ftyp) + len(meta) + 8
    return ftyp + _meta(items, primary, start) + box(b"mdat", *(item.data for item in items)) + after


def _meta(items: Sequence[Item], primary: int, start: int) -> bytes:
    places, entries, properties, associations, references = b"", b"", b"", b"", b""
    count = 0
    for number, item in enumerate(items, 1):
        places += struct.pack(">HHHII", number, 0, 1, start, len(item.data))
        start += len(item.data)
        entry = struct.pack(">HH", number, item.protection) + item.kind + b"\0"
        entries += full_box(b"infe", entry, version=2, flags=HIDDEN * item.hidden)
        associations += struct.pack(">HB", number, len(item.properties))
        for each in item.properties:
            properties += each
            count += 1
            essential = each[4:8] in (b"hvcC", b"av1C", b"irot", b"imir", b"clap")
            associations += struct.pack(">H", essential << 15 | count)
        for name, others in item.refers.items():
            references += box(name, struct.pack(f">HH{len(others)}H", number, len(others), *others))
    return full_box(
        b"meta",
        full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
        full_box(b"pitm", struct.pack(">H", primary)),
        full_box(b"iloc", b"\x44\0", struct.pack(">H", len(items)), places),
        full_box(b"iinf", struct.pack(">H", len(items)), entries),
        full_box(b"iref", references) if references else b"",
        box(b"iprp", box(b"ipco", properties), full_box(b"ipma", struct.pack(">I", len(items)), associations, flags=1)),
    )


def ispe(width: int, height: int) -> bytes:
    return full_box(b"ispe", struct.pack(">II", width, height))


def irot(quarters: int) -> bytes:
    """Return the property that turns a picture counter-clockwise by quarters."""
    return box(b"irot", bytes([quarters]))


def imir(axis: int) -> bytes:
    """Return the property that mirrors a picture: 0 exchanges top and bottom, 1 left and right."""
    return box(b"imir", bytes([axis]))


def clap(width: int, height: int, right: float = 0.0, down: float = 0.0) -> bytes:
    """Return the property that shows so many pixels, their middle so far from the picture's."""
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, round(2 * right), 2, round(2 * down), 2))


def nclx(primaries: int, transfer: int, matrix: int, *, full_range: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, full_range << 7))


def coded(picture: Pixels, kind: bytes = b"hvc1", extra: Iterable[bytes] = (), **options: Any) -> Item:
    """Encode a picture, RGB [h, w, 3], as one item; `extra` properties follow its own."""
    file = BytesIO()
    if kind == b"hvc1":
        pillow_heif.from_pillow(Image.fromarray(picture)).save(file, **{"quality": 90, **options})
    else:
        Image.fromarray(picture).save(file, "AVIF", **{"quality": 90, **options})
    content = dict(inner_boxes(file.getvalue(), 0))
    properties = dict(inner_boxes(content[b"meta"], 4))[b"iprp"]
    kept = [
        box(name, inside)
        for name, inside in inner_boxes(dict(inner_boxes(properties, 0))[b"ipco"], 0)
        if name in (b"hvcC", b"av1C", b"ispe", b"pixi", b"colr", b"clap")
    ]
    return Item(kind, content[b"mdat"], [*kept, *extra])


def grid(picture: Pixels, tile: int, kind: bytes = b"hvc1", extra: Iterable[bytes] = ()) -> list[Item]:
    """Return the items of a picture in tiles of so many pixels, the last ones filled up; the grid is the first."""
    height, width = picture.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    filled = np.pad(picture, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    tiles = [
        coded(filled[y : y + tile, x : x + tile], kind)
        for y in range(0, rows * tile, tile)
        for x in range(0, columns * tile, tile)
    ]
    for each in tiles:
        each.hidden = True
    data = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    parts = {b"dimg": list(range(2, 2 + len(tiles)))}
    colors = [each for each in tiles[0].properties if each[4:8] in (b"colr", b"pixi")]
    return [Item(b"grid", data, [ispe(width, height), *colors, *extra], parts), *tiles]


def overlay(pictures: Sequence[tuple[Pixels, int, int]], width: int, height: int) -> list[Item]:
    """Return the items of a canvas with pictures at (left, top) on it; the overlay is the first."""
    places = b"".join(struct.pack(">hh", left, top) for _, left, top in pictures)
    data = struct.pack(">BB4HHH", 0, 0, 0, 0, 0, 65535, width, height) + places
    parts = {b"dimg": list(range(2, 2 + len(pictures)))}
    items = [coded(picture) for picture, _, _ in pictures]
    for each in items:
        each.hidden = True
    return [Item(b"iovl", data, [ispe(width, height)], parts), *items]
