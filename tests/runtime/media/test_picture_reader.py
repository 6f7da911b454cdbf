"""Still pictures as frames: every format, mode and orientation against Pillow's own reading of them; damage; size."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from itertools import islice
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepscan.errors import UnsupportedInput
from deepscan.runtime.media.frames import Reader, host_picture
from deepscan.runtime.media.picture_reader import FORMATS, HEIF_KINDS, picture_kind
from deepscan.runtime.media.sampling import Choice, Sampling, sampled_frames
from tests.footage import quadrants
from tests.runtime.host_crops import crop_rgb
from tests.runtime.patches import PATCH
from tests.runtime.scenes import tasks_of
from tests.runtime.stills import (
    ENCODINGS,
    EXIF_ORIENTATION,
    HEIGHT,
    KEEPS_EXIF,
    LOSSLESS,
    WIDTH,
    Pixels,
    encoded,
    kind_of,
    only_frame,
    opened,
    photo,
    upright_rgb,
)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_format_gives_the_pixels_that_pillow_gives(name: str) -> None:
    file_format, options, kind = ENCODINGS[name]
    data = encoded(photo(), file_format, **options)
    with opened(data) as reader:
        frame = only_frame(reader)
    assert (reader.info.codec, reader.info.width, reader.info.height) == (kind, WIDTH, HEIGHT)
    assert (frame.index, frame.pts_seconds, reader.warnings()) == (0, 0.0, None)
    seen = upright_rgb(frame)
    assert np.array_equal(seen, np.asarray(Image.open(BytesIO(data)).convert("RGB")))
    if name in LOSSLESS:
        assert np.array_equal(seen, np.asarray(photo()))


@given(arrays(np.uint8, (9, 13, 3)), st.integers(0, 12), st.integers(0, 8), st.integers(1, 9))
def test_an_unscaled_crop_of_a_png_is_its_pixels(pixels: Pixels, x: int, y: int, side: int) -> None:
    x, y = min(x, 13 - side), min(y, 9 - side)
    frame = only_frame(opened(encoded(Image.fromarray(pixels), "PNG")))
    assert np.array_equal(crop_rgb(frame, (x, y, x + side, y + side), side), pixels[y : y + side, x : x + side])


@pytest.mark.parametrize("name", KEEPS_EXIF)
@pytest.mark.parametrize("code", range(1, 9))
def test_pictures_come_out_as_their_exif_data_want_them_turned(name: str, code: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = code
    file_format, options, _ = ENCODINGS[name]
    data = encoded(photo(), file_format, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB"))
    with opened(data) as reader:
        frame = only_frame(reader)
        assert (reader.info.width, reader.info.height) == ((HEIGHT, WIDTH) if code in (5, 6, 7, 8) else (WIDTH, HEIGHT))
        assert np.array_equal(upright_rgb(frame), expected)
        assert np.array_equal(reader.shrink(frame, 640)[..., ::-1], expected)
        small = reader.shrink(frame, 20).astype(int)
    assert small.shape == ((20, 12, 3) if code in (5, 6, 7, 8) else (12, 20, 3))
    halved = expected.reshape(small.shape[0], 2, small.shape[1], 2, 3).mean(axis=(1, 3))
    assert np.abs(small[..., ::-1] - halved).max() <= 1


def grays() -> Pixels:
    return np.asarray(photo().convert("L"))


def few_colors() -> Pixels:
    return np.asarray(photo().quantize(16).convert("RGB"))


def rgb() -> Pixels:
    return np.asarray(photo())


def sixteen_bit(pixels: Pixels) -> NDArray[np.uint16]:
    """Return 16-bit values whose upper halves are the given ones."""
    return pixels.astype(np.uint16) * np.uint16(256) + np.uint16(200)


def sixteen_bit_png(pixels: Pixels) -> bytes:
    deep = sixteen_bit(pixels)
    return cv2.imencode(".png", deep[..., ::-1] if pixels.ndim == 3 else deep)[1].tobytes()


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def black_and_white() -> Pixels:
    return np.where(grays() > 99, 255, 0).astype(np.uint8)


MODES: dict[str, tuple[Callable[[], bytes], Callable[[], Pixels]]] = {
    "gray-png": (lambda: encoded(photo().convert("L"), "PNG"), grays),
    "gray-jpeg": (lambda: encoded(Image.new("L", (WIDTH, HEIGHT), 77), "JPEG"), lambda: np.full_like(grays(), 77)),
    "black-and-white": (lambda: encoded(Image.fromarray(grays() > 99), "PNG"), black_and_white),
    "black-and-white-pbm": (lambda: encoded(Image.fromarray(grays() > 99), "PPM"), black_and_white),
    "gray-alpha": (lambda: encoded(with_alpha(photo().convert("L")), "PNG"), grays),
    "rgb-alpha": (lambda: encoded(with_alpha(photo()), "PNG"), rgb),
    "rgb-alpha-tiff": (lambda: encoded(with_alpha(photo()), "TIFF"), rgb),
    "rgb-one-color-transparent": (lambda: encoded(photo(), "PNG", transparency=(1, 2, 3)), rgb),
    "palette": (lambda: encoded(photo().quantize(16), "PNG"), few_colors),
    "palette-transparent": (
        lambda: encoded(photo().quantize(16), "PNG", transparency=bytes(range(16))),
        few_colors,
    ),
    "16-bit-gray-png": (lambda: sixteen_bit_png(grays()), grays),
    "16-bit-rgb-png": (lambda: sixteen_bit_png(rgb()), rgb),
    "16-bit-gray-tiff": (lambda: encoded(Image.fromarray(sixteen_bit(grays())), "TIFF"), grays),
    "16-bit-gray-pgm": (lambda: encoded(Image.fromarray(sixteen_bit(grays()).astype(np.int32)), "PPM"), grays),
}


@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_pixel_becomes_its_rgb_and_transparency_is_dropped(name: str) -> None:
    make, make_expected = MODES[name]
    expected = make_expected()
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    reader = opened(make())
    frame = only_frame(reader)
    assert {plane.dtype for plane in host_picture(frame).planes} == {np.dtype(np.uint8)}
    assert np.array_equal(upright_rgb(frame), expected)
    assert np.array_equal(reader.shrink(frame, 640)[..., ::-1], expected)


@pytest.mark.parametrize("file_format", ["TIFF", "JPEG"])
def test_printers_colors_become_rgb(file_format: str) -> None:
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (0, 100, 200, 50)]
    options: dict[str, Any] = {"quality": 100} if file_format == "JPEG" else {}
    for ink in inks:
        data = encoded(Image.new("CMYK", (16, 16), ink), file_format, **options)
        expected = [(255 - part) * (255 - ink[3]) / 255 for part in ink[:3]]
        assert np.abs(upright_rgb(only_frame(opened(data))) - np.array(expected)).max() <= 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_range_are_refused(mode: str) -> None:
    with pytest.raises(UnsupportedInput, match="convert it to 8 bits"):
        opened(encoded(photo().convert("L").convert(mode), "TIFF"))


@pytest.mark.parametrize("name", ["tiff", "tiff-lzw"])
def test_of_several_pictures_the_first_is_taken_and_it_says_so(name: str) -> None:
    file_format, options, _ = ENCODINGS[name]
    others = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "green")]
    reader = opened(encoded(photo(), file_format, save_all=True, append_images=others, **options))
    assert reader.warnings() == "only the first of 3 pictures was scanned"
    assert np.array_equal(upright_rgb(only_frame(reader)), rgb())


def test_second_views_and_previews_of_a_jpeg_need_no_remark() -> None:
    reader = opened(encoded(photo(), "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]))
    assert (reader.info.codec, reader.warnings()) == ("jpeg", None)
    assert np.abs(upright_rgb(only_frame(reader)).astype(int) - rgb()).mean() < 8


def test_a_file_that_begins_with_a_preview_is_refused() -> None:
    with pytest.raises(UnsupportedInput, match="preview"):
        opened(encoded(photo(), "TIFF", tiffinfo={254: 1}))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (300_000, 1), (1, 300_000)], ids=str)
def test_pictures_of_any_shape_are_shrunk(size: tuple[int, int]) -> None:
    reader = opened(encoded(Image.new("RGB", size, (10, 200, 30)), "PNG"))
    small = reader.shrink(only_frame(reader), 640)
    assert small.shape == (min(640, size[1]), min(640, size[0]), 3)
    assert np.array_equal(np.unique(small.reshape(-1, 3), axis=0), [[30, 200, 10]])


@pytest.mark.parametrize("longest_side", [16, 40, 100])
def test_shrinking_averages_what_it_leaves_out(longest_side: int) -> None:
    y, x = np.mgrid[:128, :128]
    reader = opened(encoded(Image.fromarray(((x + y) % 2 * 255).astype(np.uint8)), "PNG"))
    small = reader.shrink(only_frame(reader), longest_side).astype(float)
    assert small.shape == (longest_side, longest_side, 3)
    assert small.mean() == pytest.approx(127.5, abs=2)
    assert small.std() < 64  # one sample for each pixel would leave 127


def test_the_small_picture_and_the_crops_show_the_same_colors() -> None:
    reader = opened(encoded(Image.fromarray(quadrants()), "PNG"))
    frame = only_frame(reader)
    small = reader.shrink(frame, 4096)[..., ::-1]
    for x, y in [(12, 8), (44, 8), (12, 32), (44, 32)]:
        crop = crop_rgb(frame, (x, y, x + PATCH, y + PATCH), 1)
        assert np.array_equal(crop[0, 0], small[y, x])


@pytest.mark.parametrize("choice", get_args(Choice))
def test_every_sampling_takes_the_picture_once_and_searches_it(choice: Choice) -> None:
    reader: Reader = opened(encoded(photo(), "PNG"))
    sampling = Sampling(choice, count=32, window_frames=32, detect_every=5)
    (marked,) = islice(tasks_of(sampled_frames(reader, sampling), sampling), 2)
    assert (marked.small is not None, marked.starts_shot, marked.frame.pts_seconds) == (True, True, 0.0)
    assert reader.info.duration_seconds is None
    assert reader.duration_seconds() > 0


def test_the_first_window_holds_the_picture() -> None:
    reader: Reader = opened(encoded(photo(), "PNG"))
    assert [number for number, _ in reader.windows([0.0, 0.01], 32, tolerance_seconds=1.0)] == [0]


@pytest.mark.parametrize("code", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(code: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = code
    assert np.array_equal(upright_rgb(only_frame(opened(encoded(photo(), "PNG", exif=exif)))), rgb())


@pytest.mark.parametrize("name", ENCODINGS)
def test_pictures_are_known_by_their_first_bytes(name: str) -> None:
    file_format, options, kind = ENCODINGS[name]
    assert kind_of(encoded(photo(), file_format, **options)) == kind
    assert kind in {*FORMATS, *HEIF_KINDS}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xd8",
        b"RIFF\0\0\0\0AVI LIST",
        b"RIFF\0\0\0\0WEBP",
        b"BM, not a bitmap but a text",
        b"P7\nWIDTH 1",
        b"GIF89a" + bytes(20),
        b"\0\0\0\x18ftypisom\0\0\2\0isomavc1",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\0\0\0\x1cftypavis\0\0\0\0avifavismsf1",
        b"\0\0\0\x10ftypisom\0\0\2\0free avif",
    ],
)
def test_other_files_are_no_pictures(head: bytes) -> None:
    assert picture_kind(head) is None
