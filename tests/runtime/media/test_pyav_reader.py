"""The reader's contract over codecs, containers and pixel formats: frames, times, sizes, colors."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from deepscan.runtime.media.frames import Frame, host_picture
from deepscan.runtime.media.pyav_reader import PyAVReader
from tests.footage import QUADRANTS, flat, open_video, quadrants, write_video
from tests.runtime.patches import seen_in_crops, seen_in_shrink

ONE_FRAME = Fraction(1, 25)
TICK = Fraction(1, 1000)
COUNT = 6


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
LOSSLESS_ENOUGH = {
    "mjpeg": {"qmin": "1", "qmax": "2"},
    "libvpx": {"crf": "4", "b": "2M"},
    "libsvtav1": {"preset": "10"},
}
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


def test_every_frame_comes_at_its_time(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    _, frames = read(path)
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert [frame.pts_seconds for frame in frames] == pytest.approx([n / 25 for n in range(COUNT)], abs=1e-3)
    assert {(frame.geometry.width, frame.geometry.height) for frame in frames} == {(kind.width, kind.height)}


def test_threads_change_nothing(encoded: tuple[Kind, Path]) -> None:
    _, path = encoded
    for one, two in zip(read(path)[1], read(path, threads=2)[1], strict=True):
        assert one.pts_seconds == two.pts_seconds
        assert all(
            np.array_equal(a, b) for a, b in zip(host_picture(one).planes, host_picture(two).planes, strict=True)
        )


def test_the_file_says_what_it_is_and_nothing_is_missing(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    reader, _ = read(path)
    info = reader.info
    assert (info.codec, info.width, info.height) == (kind.name, kind.width, kind.height)
    assert info.frame_seconds == pytest.approx(0.04, abs=1e-3)
    assert reader.warnings() is None


def test_colors_survive(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    expected = np.array(QUADRANTS, dtype=float)
    if kind.pixel_format.startswith("gray"):
        expected = np.repeat(expected @ np.array([[0.299], [0.587], [0.114]]), 3, axis=1)
    with open_video(str(path), threads=1) as reader:
        frame = list(reader.frames())[-1]
        np.testing.assert_allclose(seen_in_crops(frame), expected, atol=6)
        np.testing.assert_allclose(seen_in_shrink(reader, frame), expected, atol=6)


def test_planes_are_not_padded_and_chroma_is_placed_by_the_codec(encoded: tuple[Kind, Path]) -> None:
    kind, path = encoded
    _, frames = read(path)
    planes = frames[0].picture.planes
    assert planes[0].shape == (kind.height, kind.width)
    assert len(planes) == (1 if kind.pixel_format.startswith("gray") else 3)
    assert frames[0].picture.left_chroma == (kind.codec != "mjpeg")


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_uneven_times_come_back_as_given(tmp_path: Path, ending: str) -> None:
    times = [0.0, 0.04, 0.1, 0.35, 0.36, 0.9, 2.0]
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    path = write_video(tmp_path / f"video.{ending}", [quadrants()] * len(times), codec=codec, times=times)
    assert [frame.pts_seconds for frame in read(path)[1]] == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "flv"])
def test_times_begin_at_zero_where_the_file_does_not(tmp_path: Path, ending: str) -> None:
    times = [5 + number / 25 for number in range(COUNT)]
    path = write_video(tmp_path / f"video.{ending}", [quadrants()] * COUNT, times=times)
    assert [frame.pts_seconds for frame in read(path)[1]] == pytest.approx([t - 5 for t in times], abs=1e-3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_times_ascend_where_the_container_knows_no_presentation_times(tmp_path: Path, codec: str) -> None:
    pictures = [flat([5 * number] * 3) for number in range(30)]
    path = write_video(tmp_path / "video.avi", pictures, codec=codec, options={"bf": "2"}, time_base=ONE_FRAME)
    seconds = [frame.pts_seconds for frame in read(path)[1]]
    assert len(seconds) == 30
    assert all(0.9 / 25 < after - before < 2.1 / 25 for before, after in pairwise(seconds))
    assert seconds[-1] == pytest.approx(29 / 25, abs=3 / 25)


@pytest.mark.parametrize("ending", ["h264", "ts"])
def test_a_change_of_size_in_the_middle_is_followed(tmp_path: Path, ending: str) -> None:
    joined = tmp_path / f"joined.{ending}"
    sizes = [(64, 48), (96, 80)]
    parts = [write_video(tmp_path / f"{width}.{ending}", [quadrants(width, height)] * 4) for width, height in sizes]
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_video(str(joined), threads=1) as reader:
        seconds, found = [], []
        for frame in reader.frames():
            seconds.append(frame.pts_seconds)
            found.append((frame.geometry.width, frame.geometry.height))
            np.testing.assert_allclose(seen_in_shrink(reader, frame), QUADRANTS, atol=8)
            np.testing.assert_allclose(seen_in_crops(frame), QUADRANTS, atol=8)
    assert found == [sizes[0]] * 4 + [sizes[1]] * 4
    assert all(after > before for before, after in pairwise(seconds))
