"""Pictures that are cut short, damaged or far too large."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import PIL
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from deepscan.errors import InputError, OverLimit, UnreadableInput, UnsupportedInput
from deepscan.limits import Limits
from deepscan.runtime.media.picture_reader import MOST_PIXELS, open_picture
from tests.runtime.stills import (
    ENCODINGS,
    HEIGHT,
    KEEPS_EXIF,
    WIDTH,
    encoded,
    kind_of,
    only_frame,
    opened,
    photo,
    upright_rgb,
)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is missing
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_file_that_is_cut_short_is_unreadable_or_whole_but_never_partly_gray(name: str) -> None:
    file_format, options, _ = ENCODINGS[name]
    exif = Image.Exif()
    exif[0x010F] = "camera"
    data = encoded(photo(), file_format, **options, **({"exif": exif} if name in KEEPS_EXIF else {}))
    whole = upright_rgb(only_frame(opened(data)))
    unreadable = 0
    for length in range(20, len(data)):
        try:
            reader = opened(data[:length])
        except UnreadableInput:
            unreadable += 1
        else:
            assert np.array_equal(upright_rgb(only_frame(reader)), whole), length
    assert unreadable > 0.8 * (len(data) - 20)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif", "tiff-lzw", "bmp", "ppm"])
@given(data=st.data())
def test_a_damaged_file_gives_a_picture_or_an_input_error(name: str, data: st.DataObject) -> None:
    file_format, options, _ = ENCODINGS[name]
    content = bytearray(encoded(photo().resize((8, 8)), file_format, **options))
    places = st.integers(16, min(len(content), 96) - 1) | st.integers(16, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    assume(kind_of(bytes(content)) is not None)
    try:
        reader = opened(bytes(content))
    except InputError:
        return
    frame = only_frame(reader)
    assert {plane.shape for plane in frame.picture.planes} == {
        (frame.geometry.coded_height, frame.geometry.coded_width)
    }
    assert max(reader.shrink(frame, 16).shape) <= 16


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\0\0nonsense", b"Exif\0\0nonsense", b"Exif\0\0"])
def test_damaged_exif_data_leave_the_picture_as_it_is_stored(file_format: str, exif: bytes) -> None:
    reader = opened(encoded(photo(), file_format, exif=exif))
    assert (reader.info.width, reader.info.height) == (WIDTH, HEIGHT)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, MOST_PIXELS + 1), (2**31 - 1, 2**31 - 1)], ids=str)
def test_decompression_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(OverLimit, match="--max-pixels"):
        opened(png_header(*size) + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b""))


def test_without_a_limit_of_pixels_what_pillow_takes_for_a_bomb_is_unsupported() -> None:
    data = png_header(1, MOST_PIXELS + 1) + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")
    with pytest.raises(UnsupportedInput, match="scale it down"):
        open_picture(BytesIO(data), "png", limits=Limits(pixels=None))


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="earlier ones decode before they look at the size")
def test_a_bomb_that_pillow_itself_refuses_is_unsupported() -> None:
    size = (16_383).to_bytes(3, "little")
    header = b"VP8X" + struct.pack("<I", 10) + bytes(4) + size + size
    with pytest.raises(UnsupportedInput, match="scale it down"):
        opened(b"RIFF" + struct.pack("<I", len(header) + 4) + b"WEBP" + header)


def test_a_large_photograph_is_no_bomb() -> None:
    data = encoded(Image.new("1", (12_000, 8_000)), "PNG")  # from 89 million pixels on Pillow would warn
    frame = only_frame(opened(data))
    assert (frame.geometry.width, frame.geometry.height) == (12_000, 8_000)
