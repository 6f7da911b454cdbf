"""The reader's contract over codecs, containers and pixel formats: frames, times, sizes, colours, upright pictures."""

from __future__ import annotations

import gc
import os
import weakref
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from deepscan.runtime.crops import crop_rgb
from deepscan.runtime.frames import Frame
from deepscan.runtime.pyav_reader import PyAVReader, open_video
from tests.footage import QUADRANTS, flat, quadrants, write_video

ONE_FRAME = Fraction(1, 25)
TICK = Fraction(1, 1000)
COUNT = 6
PATCH = 8


class Kind(NamedTuple):
    """One way to encode a video."""

    codec: str
    ending: str
    pixel_format: str
    name: str  # FFmpeg's, of the codec
    width: int = 64
    height: int = 48
    matrix: int = 1
    full_range: bool = False
    time_base: Fraction = TICK

    def __str__(self) -> str:
        return f"{self.codec}-{self.ending}-{self.pixel_format}-{self.width}x{self.height}"


KINDS = [
    Kind("libx264", "mp4", "yuv420p", "h264"),
    Kind("libx264", "mov", "yuv422p", "h264"),
    Kind("libx264", "mkv", "yuvj420p", "h264", full_range=True),
    Kind("libx264", "flv", "yuv420p", "h264"),
    Kind("libx264", "h264", "yuv420p", "h264"),
    Kind("libx264", "ts", "yuv444p10le", "h264", 65, 49, time_base=ONE_FRAME),
    Kind("libx265", "mkv", "yuv420p10le", "hevc"),
    Kind("libx265", "mp4", "yuv444p12le", "hevc", 65, 49),
    Kind("libvpx-vp9", "webm", "yuv420p", "vp9", 65, 49),
    Kind("libvpx-vp9", "webm", "yuv440p", "vp9"),
    Kind("libvpx", "webm", "yuv420p", "vp8", 65, 49, matrix=5),
    Kind("libsvtav1", "mp4", "yuv420p", "av1", 65, 49),
    Kind("libsvtav1", "mkv", "yuv420p10le", "av1", 64, 64),
    Kind("mpeg4", "avi", "yuv420p", "mpeg4", 65, 49, matrix=6, time_base=ONE_FRAME),
    Kind("mpeg2video", "ts", "yuv420p", "mpeg2video", 65, 49, time_base=ONE_FRAME),
    Kind("mpeg2video", "mpg", "yuv422p", "mpeg2video", time_base=ONE_FRAME),
    Kind("prores_ks", "mov", "yuv422p10le", "prores"),
    Kind("mjpeg", "avi", "yuvj420p", "mjpeg", 65, 49, matrix=5, full_range=True, time_base=ONE_FRAME),
    Kind("mjpeg", "avi", "yuvj422p", "mjpeg", matrix=5, full_range=True, time_base=ONE_FRAME),
    Kind("ffv1", "mkv", "yuv444p", "ffv1", 65, 49),
    Kind("ffv1", "mkv", "yuv411p", "ffv1", 65, 49),
    Kind("ffv1", "mkv", "yuv420p16le", "ffv1"),
    Kind("ffv1", "mkv", "yuva420p", "ffv1"),
    Kind("ffv1", "mkv", "bgr0", "ffv1", 65, 49),
    Kind("ffv1", "mkv", "gbrp10le", "ffv1"),
    Kind("ffv1", "mkv", "gray", "ffv1", 65, 49),
    Kind("ffv1", "mkv", "gray16le", "ffv1"),
    Kind("png", "mov", "rgb24", "png"),
    Kind("rawvideo", "mkv", "nv12", "rawvideo"),
    Kind("rawvideo", "mkv", "yuyv422", "rawvideo"),
    Kind("gif", "gif", "rgb8", "gif", 65, 49),
]
LOSSLESS_ENOUGH = {"mjpeg": {"qmin": "1", "qmax": "2"}, "libvpx": {"crf": "4", "b": "2M"}, "libsvtav1": {"preset": "10"}}
LOSSLESS_ENOUGH |= {codec: {"qmin": "1", "qmax": "2"} for codec in ("mpeg4", "mpeg2video")}


@pytest.fixture(scope="module", params=KINDS, ids=str)
def encoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kind, Path]:
    kind: Kind = request.param
    path = tmp_path_factory.mktemp("contract") / f"video.{kind.ending}"
    write_video(
        path,
        [quadrants(kind.width, kind.height)] * COUNT,
        codec=kind.codec,
        pixel_format=kind.pixel_format,
        matrix=kind.matrix,
        full_range=kind.full_range,
        time_base=kind.time_base,
        options=LOSSLESS_ENOUGH.get(kind.codec),
    )
    return kind, path


def read(path: Path, *, threads: int = 1) -> tuple[PyAVReader, list[Frame]]:
    """Return a reader, closed, and all its frames."""
    with open_video(str(path), threads=threads) as reader:
        return reader, list(reader.frames())


def seen_in_shrink(reader: PyAVReader, frame: Frame) -> list[NDArray[Any]]:
    """Return the mean colours (RGB) in the middles of the quadrants of the picture for face search."""
    picture = reader.shrink(frame, 4096)[..., ::-1]
    assert picture.shape == (frame.geometry.height, frame.geometry.width, 3)
    boxes = _patches(frame)
    return [picture[y : y + PATCH, x : x + PATCH].reshape(-1, 3).mean(axis=0) for x, y in boxes]


def seen_in_crops(frame: Frame) -> list[NDArray[Any]]:
    """Return the mean colours of crops from the middles of the quadrants."""
    crops = [crop_rgb(frame, (x, y, x + PATCH, y + PATCH), 4) for x, y in _patches(frame)]
    return [crop.reshape(-1, 3).mean(axis=0) for crop in crops]


def _patches(frame: Frame) -> list[tuple[int, int]]:
    width, height = frame.geometry.width, frame.geometry.height
    return [(width * a // 4 - PATCH // 2, height * b // 4 - PATCH // 2) for b in (1, 3) for a in (1, 3)]


def test_every_frame_comes_at_its_time(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    _, frames = read(path)
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 25 for n in range(COUNT)], abs=1e-3)
    assert {(frame.geometry.width, frame.geometry.height) for frame in frames} == {(kind.width, kind.height)}


def test_threads_change_nothing(encoded: tuple[Kind, Path]) -> None:
    _, path = encoded
    for one, two in zip(read(path)[1], read(path, threads=2)[1], strict=True):
        assert one.seconds == two.seconds
        assert all(np.array_equal(a, b) for a, b in zip(one.picture.planes, two.picture.planes, strict=True))


def test_the_file_says_what_it_is_and_nothing_is_missing(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    reader, _ = read(path)
    info = reader.info
    assert (info.codec, info.width, info.height) == (kind.name, kind.width, kind.height)
    assert info.frame_seconds == pytest.approx(0.04, abs=1e-3)
    assert reader.damage() is None


def test_colours_survive(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    expected = np.array(QUADRANTS, dtype=float)
    if kind.pixel_format.startswith("gray"):
        expected = np.repeat(expected @ np.array([[0.299], [0.587], [0.114]]), 3, axis=1)
    with open_video(str(path), threads=1) as reader:
        frame = list(reader.frames())[-1]
        np.testing.assert_allclose(seen_in_crops(frame), expected, atol=6)
        np.testing.assert_allclose(seen_in_shrink(reader, frame), expected, atol=6)


def test_planes_are_not_padded(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    _, frames = read(path)
    planes = frames[0].picture.planes
    assert planes[0].shape == (kind.height, kind.width)
    assert len(planes) == (1 if kind.pixel_format.startswith("gray") else 3)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_uneven_times_come_back_as_given(tmp_path: Path, ending: str) -> None:
    times = [0.0, 0.04, 0.1, 0.35, 0.36, 0.9, 2.0]
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    path = write_video(tmp_path / f"video.{ending}", [quadrants()] * len(times), codec=codec, times=times)
    assert [frame.seconds for frame in read(path)[1]] == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv"])
def test_times_begin_at_zero_where_the_file_does_not(tmp_path: Path, ending: str) -> None:
    times = [5 + number / 25 for number in range(COUNT)]
    path = write_video(tmp_path / f"video.{ending}", [quadrants()] * COUNT, times=times)
    assert [frame.seconds for frame in read(path)[1]] == pytest.approx([t - 5 for t in times], abs=1e-3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_ascend_where_the_container_knows_no_presentation_times(tmp_path: Path, codec: str) -> None:
    pictures = [flat([5 * number] * 3) for number in range(30)]
    path = write_video(tmp_path / "video.avi", pictures, codec=codec, options={"bf": "2"}, time_base=ONE_FRAME)
    seconds = [frame.seconds for frame in read(path)[1]]
    assert len(seconds) == 30
    assert all(0.9 / 25 < after - before < 2.1 / 25 for before, after in pairwise(seconds))
    assert seconds[-1] == pytest.approx(29 / 25, abs=3 / 25)


def corner_colours(matrix: tuple[int, int, int, int]) -> list[tuple[int, int, int]]:
    """Return the quadrants' colours in reading order after (x, y) -> (ax + cy, bx + dy), QuickTime's display matrix."""
    a, b, c, d = matrix
    corners = [(-1, -1), (1, -1), (-1, 1), (1, 1)]
    shown = {(a * x + c * y, b * x + d * y): colour for (x, y), colour in zip(corners, QUADRANTS, strict=True)}
    return [shown[corner] for corner in corners]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "bgr0"])
@pytest.mark.parametrize("across", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("first", [1, -1])
@pytest.mark.parametrize("second", [1, -1])
def test_turned_and_mirrored_videos_come_out_as_players_show_them(
    tmp_path: Path, ending: str, pixel_format: str, across: bool, first: int, second: int
) -> None:
    if ending == "mkv" and (across and first == second or not across and first != second):
        pytest.skip("Matroska stores a rotation, no mirroring")
    if ending == "mp4" and pixel_format == "bgr0":
        pytest.skip("MP4 holds no FFV1 in RGB")
    matrix = (0, first, second, 0) if across else (first, 0, 0, second)
    one = 1 << 16
    path = write_video(
        tmp_path / f"video.{ending}",
        [quadrants()] * 2,
        codec="ffv1" if pixel_format == "bgr0" else "libx264",
        pixel_format=pixel_format,
        display_matrix=[matrix[0] * one, matrix[1] * one, 0, matrix[2] * one, matrix[3] * one, 0, 0, 0, 1 << 30],
    )
    expected = corner_colours(matrix)
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        assert (reader.info.width, reader.info.height) == ((48, 64) if across else (64, 48))
        np.testing.assert_allclose(seen_in_shrink(reader, frame), expected, atol=8)
        np.testing.assert_allclose(seen_in_crops(frame), expected, atol=8)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_rotation_is_undone_the_way_pyav_describes_it(tmp_path: Path, rotation: int) -> None:
    path = write_video(tmp_path / "video.mp4", [quadrants()] * 2, rotation=rotation)
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        upright = np.rot90(quadrants(), frame.native.rotation // 90)
        assert frame.native.rotation % 360 == rotation
        assert np.abs(reader.shrink(frame, 64)[..., ::-1].astype(int) - upright)[4:-4:8, 4:-4:8].max() < 8


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


@pytest.mark.parametrize("ending", ["h264", "ts"])
def test_a_change_of_size_in_the_middle_is_followed(tmp_path: Path, ending: str) -> None:
    joined = tmp_path / f"joined.{ending}"
    sizes = [(64, 48), (96, 80)]
    parts = [write_video(tmp_path / f"{width}.{ending}", [quadrants(width, height)] * 4) for width, height in sizes]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_video(str(joined), threads=1) as reader:
        seconds, found = [], []
        for frame in reader.frames():
            seconds.append(frame.seconds)
            found.append((frame.geometry.width, frame.geometry.height))
            np.testing.assert_allclose(seen_in_shrink(reader, frame), QUADRANTS, atol=8)
            np.testing.assert_allclose(seen_in_crops(frame), QUADRANTS, atol=8)
    assert found == [sizes[0]] * 4 + [sizes[1]] * 4
    assert all(after > before for before, after in pairwise(seconds))


@pytest.mark.parametrize("longest_side", [1, 7, 33, 64, 640])
def test_shrinking_keeps_the_shape_and_never_enlarges(tmp_path: Path, longest_side: int) -> None:
    path = write_video(tmp_path / "video.mp4", [quadrants()] * 2)
    with open_video(str(path), threads=1) as reader:
        height, width, _ = reader.shrink(next(reader.frames()), longest_side).shape
    assert width == min(longest_side, 64)
    assert height == max(1, round(width * 48 / 64))


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    big = flat((90, 80, 70), 640, 480)
    path = write_video(tmp_path / "video.mkv", [big] * 300, options={"preset": "ultrafast", "bf": "0"})
    page = os.sysconf("SC_PAGE_SIZE")
    alive: list[weakref.ref[Any]] = []
    resident = []
    with open_video(str(path), threads=2) as reader:
        for frame in reader.frames():
            alive.append(weakref.ref(frame.picture.planes[0]))
            resident.append(page * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]))
            assert sum(plane() is not None for plane in alive[-20:]) <= 3
    gc.collect()
    assert len(alive) == 300
    assert max(resident[50:]) - resident[50] < 25 * big.nbytes / 2  # 250 frames of 12 bits per pixel are ten times more
