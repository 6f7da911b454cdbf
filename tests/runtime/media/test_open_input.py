"""Files are opened as what they hold: names do not matter, moving pictures are videos, nothing stays open."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepscan.errors import InputError, UnreadableInput, UnsupportedInput
from deepscan.runtime.media.open_input import CHUNK_BYTES, open_input
from deepscan.runtime.media.picture_reader import PictureReader
from deepscan.runtime.media.pyav_reader import PyAVReader
from tests.footage import flat, portrait, write_video
from tests.runtime.stills import HEIGHT, WIDTH, encoded, only_frame, photo, upright_rgb

COLORS = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "green", "blue")]
ONE_FRAME = Fraction(1, 25)
NOT_ALL = "what follows its first picture was not scanned"


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def open_files(path: str) -> list[str]:
    """Return this process's open files of that path."""
    numbers = os.listdir("/proc/self/fd")
    targets = [os.path.realpath(f"/proc/self/fd/{number}") for number in numbers]
    return [target for target in targets if target == os.path.realpath(path)]


@pytest.mark.parametrize("name", ["picture.png", "picture.mp4", "picture", "picture.gif"])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "PPM"])
def test_a_picture_is_one_under_any_name(tmp_path: Path, file_format: str, name: str) -> None:
    path = write(tmp_path / name, encoded(photo(), file_format))
    with open_input(path, threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert not open_files(path)
        os.unlink(path)
        assert reader.info.codec == file_format.lower()
        assert np.abs(upright_rgb(only_frame(reader)).astype(int) - portrait(WIDTH, HEIGHT)).mean() < 12


def test_a_video_is_one_under_any_name(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", [flat((200, 60, 90))] * 3).rename(tmp_path / "picture.jpg")
    with open_input(str(path), threads=1) as reader:
        assert isinstance(reader, PyAVReader)
        assert (reader.info.codec, len(list(reader.frames()))) == ("h264", 3)
    assert not open_files(str(path))


@pytest.mark.parametrize(
    ("file_format", "codec", "count"), [("PNG", "apng", 3), ("GIF", "gif", 3), ("AVIF", "av1", 3), ("GIF", "gif", 1)]
)
def test_what_moves_is_a_video_and_every_gif(tmp_path: Path, file_format: str, codec: str, count: int) -> None:
    data = encoded(COLORS[0], file_format, save_all=True, append_images=COLORS[1:count], duration=100)
    with open_input(write(tmp_path / "moving", data), threads=1) as reader:
        assert isinstance(reader, PyAVReader)
        assert (reader.info.codec, len(list(reader.frames()))) == (codec, count)


def test_a_raw_motion_jpeg_stream_is_a_video(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "stream.mjpeg",
        [portrait(320, 240)] * 12,
        codec="mjpeg",
        pixel_format="yuvj420p",
        full_range=True,
        time_base=ONE_FRAME,
    )
    with open_input(str(path), threads=1) as reader:
        assert isinstance(reader, PyAVReader)
        assert len(list(reader.frames())) == 12


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("place", range(-12, 4))
def test_what_follows_a_jpeg_is_mentioned_wherever_it_begins(tmp_path: Path, place: int, padding: int) -> None:
    """FFmpeg takes these for no video: the first picture is scanned, and the row says that more follow."""
    first = encoded(photo(), "JPEG")
    comments, missing = b"", CHUNK_BYTES + place - len(first)
    while missing:
        size = min(missing, 60_000) if missing - 60_000 not in range(1, 4) else missing - 10
        comments += b"\xff\xfe" + (size - 2).to_bytes(2, "big") + bytes(size - 4)
        missing -= size
    data = first[:2] + comments + first[2:]
    assert len(data) == CHUNK_BYTES + place
    second = encoded(COLORS[0], "JPEG")
    with open_input(write(tmp_path / "two.jpg", data + bytes(padding) + second), threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert reader.warnings() == NOT_ALL
    with open_input(write(tmp_path / "one.jpg", data), threads=1) as reader:
        assert reader.warnings() is None


def test_second_views_and_previews_of_a_jpeg_are_no_video(tmp_path: Path) -> None:
    data = encoded(photo(), "MPO", save_all=True, append_images=COLORS)
    with open_input(write(tmp_path / "stereo.jpg", data), threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert reader.warnings() is None


def test_a_png_that_only_claims_to_move_is_a_picture(tmp_path: Path) -> None:
    data = encoded(photo(), "PNG")
    with open_input(write(tmp_path / "still.png", data + b"acTL after the pixels"), threads=1) as reader:
        assert isinstance(reader, PictureReader)
        assert reader.warnings() is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", UnreadableInput),
        (b"no picture and no video", UnreadableInput),
        (encoded(photo(), "PNG")[:90], UnreadableInput),
        (encoded(photo(), "TIFF", tiffinfo={254: 1}), UnsupportedInput),
        (encoded(COLORS[0], "PNG", save_all=True, append_images=COLORS[1:])[:120], UnreadableInput),
    ],
    ids=["empty", "text", "cut-short", "preview", "moving-cut-short"],
)
def test_what_cannot_be_opened_says_why_and_is_closed(
    tmp_path: Path, content: bytes, problem: type[InputError]
) -> None:
    path = write(tmp_path / "file", content)
    with pytest.raises(problem), open_input(path, threads=1) as reader:
        list(reader.frames())
    assert not open_files(path)


def test_a_folder_and_a_missing_file_are_no_inputs(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedInput, match="folder"):
        open_input(str(tmp_path), threads=1)
    with pytest.raises(UnreadableInput, match="No such file"):
        open_input(str(tmp_path / "missing.png"), threads=1)
