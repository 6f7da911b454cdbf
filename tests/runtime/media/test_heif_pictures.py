"""HEIC and AVIF stills come out whole and upright exactly once, or not at all; FFmpeg never sees a tile."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepscan.errors import InputError, OverLimit, UnreadableInput, UnsupportedInput
from deepscan.limits import Limits
from deepscan.runtime.media.heif_facts import heif_facts
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.picture_reader import PictureReader, open_picture
from deepscan.runtime.media.pyav_reader import PyAVReader
from tests.footage import counting, number_of, portrait, write_video
from tests.heif_files import Item, Pixels, box, clap, coded, full_box, grid, heif_file, imir, irot, ispe, overlay
from tests.runtime.stills import only_frame, opened, upright_rgb

PHOTO = portrait(200, 120)
HEVC, AV1 = b"hvc1", b"av01"
BRANDS = {HEVC: (b"heic", b"mif1"), AV1: (b"avif", b"mif1", b"miaf")}
MOTION = "the video or sequence that comes with the picture was not scanned"
EXIF_TURNED = b"\0\0\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
SIX_TILES = struct.pack(">BBBBHH", 0, 0, 1, 2, 200, 120)


@cache
def whole_items(kind: bytes) -> tuple[Item, ...]:
    return (coded(PHOTO, kind),)


@cache
def tiled_items(kind: bytes) -> tuple[Item, ...]:
    return tuple(grid(PHOTO, 64, kind))


def whole(kind: bytes, extra: Sequence[bytes] = ()) -> list[Item]:
    first, *others = whole_items(kind)
    return [replace(first, properties=[*first.properties, *extra]), *others]


def tiled(kind: bytes, extra: Sequence[bytes] = ()) -> list[Item]:
    first, *others = tiled_items(kind)
    return [replace(first, properties=[*first.properties, *extra]), *others]


def of(kind: bytes, items: Sequence[Item], **options: object) -> bytes:
    return heif_file(items, **{"brands": BRANDS[kind], **options})  # type: ignore[arg-type]


def check(data: bytes, expected: Pixels, *, remark: str | None = None) -> None:
    reader = opened(data)
    seen = upright_rgb(only_frame(reader))
    assert seen.shape == expected.shape
    assert (reader.info.width, reader.info.height) == expected.shape[1::-1]
    assert np.abs(seen.astype(int) - expected).mean() < 2.5
    small = reader.shrink(only_frame(reader), 1000)
    assert np.array_equal(small[..., ::-1], seen)
    assert reader.warnings() == remark


MOVES: dict[str, tuple[list[bytes], Callable[[Pixels], Pixels]]] = {
    "as-it-is": ([], lambda picture: picture),
    "turned-left": ([irot(1)], lambda picture: np.rot90(picture, 1)),
    "turned-twice": ([irot(2)], lambda picture: np.rot90(picture, 2)),
    "turned-right": ([irot(3)], lambda picture: np.rot90(picture, 3)),
    "upside-down": ([imir(0)], lambda picture: picture[::-1]),
    "mirrored": ([imir(1)], lambda picture: picture[:, ::-1]),
    "turned-and-mirrored": ([irot(1), imir(1)], lambda picture: np.rot90(picture, 1)[:, ::-1]),
    "cropped": ([clap(100, 60, 10, -5)], lambda picture: picture[25:85, 60:160]),
    "cropped-and-turned": ([clap(100, 60, 10, -5), irot(1)], lambda picture: np.rot90(picture[25:85, 60:160])),
}


@pytest.mark.parametrize("kind", [HEVC, AV1], ids=["heic", "avif"])
@pytest.mark.parametrize("name", MOVES)
def test_pictures_and_grids_are_upright_and_cropped_once(kind: bytes, name: str) -> None:
    properties, moved = MOVES[name]
    expected = moved(PHOTO)
    check(of(kind, whole(kind, properties)), expected)
    check(of(kind, tiled(kind, properties)), expected)
    exif = Item(b"Exif", EXIF_TURNED, [], {b"cdsc": [1]}, hidden=True)
    check(of(kind, [*whole(kind, properties), exif]), expected)


@pytest.mark.parametrize("kind", [HEVC, AV1], ids=["heic", "avif"])
def test_other_pictures_in_the_file_are_not_taken_for_the_primary_one(kind: bytes) -> None:
    thumbnail, other = coded(portrait(64, 40)[::-1], kind), coded(PHOTO[::-1], kind)
    depth = full_box(b"auxC", b"urn:mpeg:hevc:2015:auxid:2\0")
    auxiliary = Item(kind, other.data, [*other.properties, depth], {b"auxl": [2]}, hidden=True)
    check(
        of(kind, [Item(kind, thumbnail.data, thumbnail.properties, {b"thmb": [2]}), *whole(kind)], primary=2),
        PHOTO,
    )
    check(of(kind, [auxiliary, *whole(kind)], primary=2), PHOTO)
    check(of(kind, whole(kind), brands=(b"mif1",)), PHOTO)
    check(of(kind, tiled(kind), brands=(b"mif1",)), PHOTO)
    check(of(kind, whole(kind), after=box(b"mpvd", bytes(100))), PHOTO, remark=MOTION)


def test_odd_sizes_and_overlays() -> None:
    odd = portrait(201, 121)
    check(of(HEVC, [coded(odd)]), odd)
    check(of(HEVC, grid(odd, 64)), odd)
    check(of(AV1, [coded(odd, AV1)]), odd)
    part = portrait(96, 64)
    canvas = np.zeros((120, 200, 3), np.uint8)
    canvas[10:74, 20:116] = part
    canvas[50:114, 100:196] = part
    check(of(HEVC, overlay([(part, 20, 10), (part, 100, 50)], 200, 120)), canvas)


@pytest.mark.parametrize("mode", ["RGB;16", "L", "I;16", "LA", "RGBa"])
def test_every_depth_and_kind_of_samples(mode: str) -> None:
    gray = PHOTO.mean(axis=2).astype(np.uint8)
    halved = np.dstack([PHOTO // 2, np.full(gray.shape, 128, np.uint8)])  # colors come multiplied by alpha
    stored, expected = {
        "RGB;16": (PHOTO.astype("<u2") * 257, PHOTO),
        "L": (gray, np.dstack([gray] * 3)),
        "I;16": (gray.astype("<u2") * 257, np.dstack([gray] * 3)),
        "LA": (np.dstack([gray, gray // 2]), np.dstack([gray] * 3)),
        "RGBa": (halved, PHOTO),
    }[mode]
    file = BytesIO()
    pillow_heif.from_bytes(mode, PHOTO.shape[1::-1], stored.tobytes()).save(file, quality=95)
    check(file.getvalue(), expected)


def test_several_pictures_are_mentioned() -> None:
    check(of(HEVC, [coded(PHOTO), coded(PHOTO[::-1])]), PHOTO, remark="only the first of 2 pictures was scanned")


@pytest.mark.parametrize("alpha", ["heic", "avif"])
def test_of_a_transparent_picture_the_stored_colors_are_seen(alpha: str) -> None:
    image = Image.fromarray(PHOTO).convert("RGBA")
    image.putalpha(100)
    file = BytesIO()
    if alpha == "heic":
        pillow_heif.from_pillow(image).save(file, quality=90)
    else:
        image.save(file, "AVIF", quality=90)
    check(file.getvalue(), PHOTO)


TILES = tiled(HEVC)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (
            [Item(b"grid", TILES[0].data, TILES[0].properties, {b"dimg": [2, 3, 4, 5, 6, 7, 8, 99]}), *TILES[1:]],
            UnreadableInput,
        ),
        (
            [*TILES[:3], Item(HEVC, bytes(len(TILES[3].data)), TILES[3].properties, hidden=True), *TILES[4:]],
            UnreadableInput,
        ),
        ([Item(b"grid", SIX_TILES, [ispe(200, 120)], {b"dimg": [1]})], InputError),
        ([Item(b"iovl", b"", [ispe(200, 120)], {b"dimg": [2]}), coded(PHOTO, AV1)], UnsupportedInput),
        ([TILES[0], *(replace(tile, protection=1) for tile in TILES[1:])], UnsupportedInput),
        ([Item(b"avc1", b"", [ispe(200, 120)])], UnsupportedInput),
        ([Item(b"grid", SIX_TILES, [ispe(200, 120)], {b"dimg": [2]}), Item(b"j2k1", b"")], UnsupportedInput),
    ],
    ids=["tile-not-there", "tile-damaged", "made-of-itself", "avif-overlay", "encrypted", "h264", "jpeg-2000-tiles"],
)
def test_what_cannot_be_decoded_whole_is_refused(tmp_path: Path, items: list[Item], problem: type[InputError]) -> None:
    (tmp_path / "photo").write_bytes(heif_file(items))
    with pytest.raises(problem):
        open_input(str(tmp_path / "photo"), threads=1)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", [HEVC, AV1], ids=["heic", "avif"])
def test_a_photograph_that_is_cut_short_is_unreadable(tmp_path: Path, kind: bytes, share: float) -> None:
    data = of(kind, tiled(kind))
    (tmp_path / "photo").write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnreadableInput):
        open_input(str(tmp_path / "photo"), threads=1)


@pytest.mark.parametrize("kind", [HEVC, AV1], ids=["heic", "avif"])
def test_bombs_are_refused_by_their_header(kind: bytes) -> None:
    data = struct.pack(">BBBBHH", 0, 0, 0, 0, 60_000, 60_000)
    bomb = of(kind, [Item(b"grid", data, [ispe(60_000, 60_000)], {b"dimg": [2]}), *whole(kind)])
    with pytest.raises(OverLimit, match="--max-pixels"):
        opened(bomb)
    with pytest.raises(OverLimit, match="--max-pixels"):
        open_picture(BytesIO(of(kind, whole(kind))), "heif", limits=Limits(pixels=1000))


def test_a_heic_picture_that_is_larger_than_it_says_is_refused() -> None:
    lying = coded(np.zeros((1024, 1024, 3), np.uint8))
    lying.properties = [each if each[4:8] != b"ispe" else ispe(64, 64) for each in lying.properties]
    with pytest.raises(InputError):
        opened(of(HEVC, [lying]))


@given(st.data())
def test_damaged_boxes_give_a_picture_or_an_input_error(data: st.DataObject) -> None:
    content = bytearray(MUTATED)
    for place in data.draw(st.lists(st.integers(0, MUTATED.index(b"mdat")), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    facts = heif_facts(BytesIO(bytes(content)))
    if facts.kind is not None:
        try:
            open_picture(BytesIO(bytes(content)), facts.kind)
        except InputError:
            return


MUTATED = heif_file(grid(portrait(64, 40), 32, extra=[clap(40, 30), irot(1)]))


def movie_with_items(tmp_path: Path, items: Sequence[Item], brands: Sequence[bytes]) -> Path:
    """Write a file of four gray frames as a track, behind items."""
    movie = write_video(tmp_path / "movie.mp4", counting(4), codec="libx265").read_bytes()
    rest = bytearray(movie[int.from_bytes(movie[:4]) :])
    head = heif_file(items, brands=brands)
    table = rest.index(b"stco")
    for number in range(int.from_bytes(rest[table + 8 : table + 12])):
        at = table + 12 + 4 * number
        rest[at : at + 4] = (int.from_bytes(rest[at : at + 4]) + len(head) - len(movie) + len(rest)).to_bytes(4)
    path = tmp_path / "both.heic"
    path.write_bytes(head + rest)
    return path


@pytest.mark.parametrize("major", [b"msf1", b"hevc", b"mp42", b"qt  "])
def test_of_a_sequence_the_tracks_are_scanned_and_no_tile(tmp_path: Path, major: bytes) -> None:
    path = movie_with_items(tmp_path, grid(portrait(128, 96), 64), (major, b"mif1", b"heic", b"iso8"))
    with open_input(str(path), threads=1) as reader:
        assert isinstance(reader, PyAVReader)
        assert [number_of(reader.shrink(frame, 64)) for frame in reader.frames()] == [0, 1, 2, 3]
        assert reader.warnings() is None


@pytest.mark.parametrize("major", [b"heic", b"mif1"])
def test_of_a_photograph_with_a_track_the_photograph_is_scanned(tmp_path: Path, major: bytes) -> None:
    path = movie_with_items(tmp_path, tiled(HEVC), (major, b"mif1", b"hevc", b"msf1"))
    with open_input(str(path), threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert reader.warnings() == MOTION
        assert np.abs(upright_rgb(only_frame(reader)).astype(int) - PHOTO).mean() < 2.5


def test_without_a_known_brand_or_with_boxes_before_it_no_tile_is_seen(tmp_path: Path) -> None:
    data = heif_file(tiled(HEVC), brands=(b"xxxx", b"yyyy"))
    check(data, PHOTO)
    ftyp = int.from_bytes(data[:4])
    for number, shifted in enumerate([data[ftyp:], box(b"free") + data]):
        (tmp_path / str(number)).write_bytes(shifted)
        with pytest.raises(InputError):
            open_input(str(tmp_path / str(number)), threads=1)


def test_alpha_planes_of_a_sequence_are_no_videos(tmp_path: Path) -> None:
    frames = [Image.fromarray(each).convert("RGBA") for each in counting(3)]
    frames[0].save(tmp_path / "moving.avif", save_all=True, append_images=frames[1:], duration=100)
    with open_input(str(tmp_path / "moving.avif"), threads=1) as reader:
        assert isinstance(reader, PyAVReader)
        assert [number_of(reader.shrink(frame, 64)) for frame in reader.frames()] == [0, 1, 2]
        assert reader.warnings() is None
