"""The moving stream is the video, not a cover before it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition

from tests.footage import counting, flat, open_video, write_video

COUNT = 30


def beside(path: Path, *, codec: str, stills: int, flag: Disposition, still_first: bool = True) -> Path:
    """Write a moving stream beside one of stills, one a second, which is larger."""
    with av.open(str(path), "w") as container:
        packets: list[Any] = []
        for still in (True, False) if still_first else (False, True):
            stream: Any = container.add_stream(codec if still else "libx264", rate=25)
            stream.width, stream.height = (320, 240) if still else (64, 48)
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(stream.codec_context.name, "yuv420p")
            stream.disposition = flag if still else Disposition(0)
            for number, picture in enumerate([flat((90, 20, 20), 320, 240)] * stills if still else counting(COUNT)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number * (25 if still else 1), Fraction(1, 25)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda one: float((one.pts if one.dts is None else one.dts) * one.time_base)):
            container.mux(packet)
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize(
    ("codec", "stills", "flag"),
    [
        ("mjpeg", 1, Disposition.default),
        ("libx264", 1, Disposition.default),
        ("mjpeg", 2, Disposition.default),
        ("mjpeg", 1, Disposition.attached_pic),
    ],
    ids=str,
)
@pytest.mark.parametrize("still_first", [True, False])
def test_a_cover_is_neither_the_video_nor_reported(
    tmp_path: Path, ending: str, codec: str, stills: int, flag: Disposition, still_first: bool
) -> None:
    path = beside(tmp_path / f"a.{ending}", codec=codec, stills=stills, flag=flag, still_first=still_first)
    with open_video(str(path), threads=1) as reader:
        assert (len(list(reader.frames())), reader.info.width, reader.warnings()) == (COUNT, 64, None)


def test_a_second_video_is_reported(tmp_path: Path) -> None:
    path = beside(tmp_path / "a.mkv", codec="libx264", stills=20, flag=Disposition.default)
    with open_video(str(path), threads=1) as reader:
        assert len(list(reader.frames())) == 20
        assert reader.warnings() == "1 other video stream in it was not scanned"


def test_a_file_of_a_single_picture_is_that_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [flat((9, 9, 9))], codec="mjpeg", pixel_format="yuvj420p")
    with open_video(str(path), threads=1) as reader:
        assert len(list(reader.frames())) == 1
