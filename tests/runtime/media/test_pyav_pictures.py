"""Pictures as players show them: upright, in square pixels, and shrunk for the face search."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.footage import QUADRANTS, open_video, quadrants, write_video
from tests.runtime.patches import seen_in_crops, seen_in_shrink

ONE_FRAME = Fraction(1, 25)


def corner_colors(matrix: tuple[int, int, int, int]) -> list[tuple[int, int, int]]:
    """Return the quadrants' colors in reading order after (x, y) -> (ax + cy, bx + dy), QuickTime's display matrix."""
    a, b, c, d = matrix
    corners = [(-1, -1), (1, -1), (-1, 1), (1, 1)]
    shown = {(a * x + c * y, b * x + d * y): color for (x, y), color in zip(corners, QUADRANTS, strict=True)}
    return [shown[corner] for corner in corners]


@pytest.mark.parametrize(("codec", "ending", "pixel_format"), [("libx264", "mp4", "yuv420p"), ("png", "mov", "rgb24")])
@pytest.mark.parametrize("across", [False, True], ids=["straight", "across"])
@pytest.mark.parametrize("first", [1, -1])
@pytest.mark.parametrize("second", [1, -1])
def test_turned_and_mirrored_videos_come_out_as_players_show_them(
    tmp_path: Path, codec: str, ending: str, pixel_format: str, across: bool, first: int, second: int
) -> None:
    matrix = (0, first, second, 0) if across else (first, 0, 0, second)
    a, b, c, d = (number << 16 for number in matrix)
    path = write_video(
        tmp_path / f"video.{ending}",
        [quadrants()] * 2,
        codec=codec,
        pixel_format=pixel_format,
        display_matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30],
    )
    expected = corner_colors(matrix)
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        assert (reader.info.width, reader.info.height) == ((48, 64) if across else (64, 48))
        np.testing.assert_allclose(seen_in_shrink(reader, frame), expected, atol=8)
        np.testing.assert_allclose(seen_in_crops(frame), expected, atol=8)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_rotation_is_undone_the_way_pyav_describes_it(tmp_path: Path, ending: str, rotation: int) -> None:
    path = write_video(tmp_path / f"video.{ending}", [quadrants()] * 2, rotation=rotation)
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        upright = np.rot90(quadrants(), frame.native.rotation // 90)
        assert frame.native.rotation % 360 == rotation
        assert np.abs(reader.shrink(frame, 64)[..., ::-1].astype(int) - upright)[4:-4:8, 4:-4:8].max() < 8


@pytest.mark.parametrize("turned", [None, 6, 8, 3], ids=str)
def test_pictures_with_exif_data_are_read_and_turned(tmp_path: Path, turned: int | None) -> None:
    """Cameras write motion JPEG with Exif data, which PyAV does not know. 6 turns clockwise, 8 back, 3 by half."""
    exif = Image.Exif()
    exif[0x010F] = "camera"
    if turned is not None:
        exif[0x0112] = turned
    jpeg = BytesIO()
    Image.fromarray(quadrants()).save(jpeg, "JPEG", exif=exif, quality=95)
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuvj420p", ONE_FRAME
        for number in range(2):
            packet: Any = av.Packet(jpeg.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, ONE_FRAME
            packet.is_keyframe = True
            container.mux(packet)
    turns = {None: 0, 8: 1, 3: 2, 6: 3}[turned]
    upright = np.rot90(np.arange(4).reshape(2, 2), turns).ravel()
    with open_video(str(path), threads=1) as reader:
        for frame in reader.frames():
            np.testing.assert_allclose(seen_in_crops(frame), [QUADRANTS[number] for number in upright], atol=8)


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(16, 11), Fraction(1, 2)], ids=str)
@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, aspect: Fraction, rotation: int) -> None:
    path = write_video(tmp_path / "video.mp4", [quadrants()] * 2, aspect=aspect, rotation=rotation)
    size = (round(64 * aspect), 48)
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        assert (reader.info.width, reader.info.height) == (size if rotation == 0 else size[::-1])
        expected = [QUADRANTS[n] for n in ((0, 1, 2, 3) if rotation == 0 else (1, 3, 0, 2))]
        np.testing.assert_allclose(seen_in_shrink(reader, frame), expected, atol=8)
        np.testing.assert_allclose(seen_in_crops(frame), expected, atol=8)


@pytest.mark.parametrize("longest_side", [1, 7, 33, 64, 640])
def test_shrinking_keeps_the_shape_and_never_enlarges(tmp_path: Path, longest_side: int) -> None:
    path = write_video(tmp_path / "video.mp4", [quadrants()] * 2)
    with open_video(str(path), threads=1) as reader:
        height, width, _ = reader.shrink(next(reader.frames()), longest_side).shape
    assert width == min(longest_side, 64)
    assert height == max(1, round(width * 48 / 64))


@pytest.mark.parametrize("longest_side", [16, 40, 100])
def test_shrinking_averages_what_it_leaves_out(tmp_path: Path, longest_side: int) -> None:
    y, x = np.mgrid[:128, :128]
    board = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    path = write_video(tmp_path / "video.mkv", [board], codec="ffv1", pixel_format="yuv444p")
    with open_video(str(path), threads=1) as reader:
        small = reader.shrink(next(reader.frames()), longest_side).astype(float)
    assert small.mean() == pytest.approx(127.5, abs=3)
    assert small.std() < 64  # one sample for each pixel would leave 127
