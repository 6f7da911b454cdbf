"""The moving stream is the video, not a cover before it; encrypted videos are told from damaged ones."""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from deepscan.errors import UnsupportedInput
from deepscan.runtime.media.encryption import refuse_encrypted
from deepscan.runtime.media.pyav_reader import open_video
from tests.footage import counting, flat, write_video

COUNT = 30
KEY = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "00112233445566778899aabbccddeeff",
    "encryption_kid": "112233445566778899aabbccddeeff00",
}


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
def test_a_cover_is_not_the_video_and_not_told_of(
    tmp_path: Path, ending: str, codec: str, stills: int, flag: Disposition, still_first: bool
) -> None:
    path = beside(tmp_path / f"a.{ending}", codec=codec, stills=stills, flag=flag, still_first=still_first)
    with open_video(str(path), threads=1) as reader:
        assert (len(list(reader.frames())), reader.info.width, reader.warnings()) == (COUNT, 64, None)


def test_a_second_video_is_told_of(tmp_path: Path) -> None:
    path = beside(tmp_path / "a.mkv", codec="libx264", stills=20, flag=Disposition.default)
    with open_video(str(path), threads=1) as reader:
        assert len(list(reader.frames())) == 20
        assert reader.warnings() == "1 other video stream in it was not scanned"


def test_a_file_of_a_single_picture_is_that_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [flat((9, 9, 9))], codec="mjpeg", pixel_format="yuvj420p")
    with open_video(str(path), threads=1) as reader:
        assert len(list(reader.frames())) == 1


def scrambled(path: Path, size: int) -> Path:
    """Write a transport stream, then hide what its video packets hold."""
    write_video(path, counting(COUNT), time_base=Fraction(1, 25))
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(0)
    for place in range(size - 188, len(data) - 3, size):
        if (data[place + 1] & 0x1F) << 8 | data[place + 2] == (0x100 if size == 188 else 0x1011):
            data[place + 3] |= 0x80
            data[place + 30 : place + 188] = generator.bytes(158)
    path.write_bytes(data)
    return path


def element(identity: int, *content: bytes) -> bytes:
    body = b"".join(content)
    return identity.to_bytes((identity.bit_length() + 7) // 8) + (1 << 56 | len(body)).to_bytes(8) + body


def webm(path: Path, *, encoding_type: int, track_type: int = 1) -> Path:
    encodings = element(0x6D80, element(0x6240, element(0x5033, bytes([encoding_type]))))
    track = element(0xAE, element(0xD7, b"\1"), element(0x83, bytes([track_type])), encodings)
    path.write_bytes(element(0x1A45DFA3, element(0x4282, b"webm")) + element(0x18538067, element(0x1654AE6B, track)))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "fragments.mp4", "a.ts", "a.m2ts"])
def test_encrypted_videos_are_unsupported(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix in (".ts", ".m2ts"):
        scrambled(path, 188 if path.suffix == ".ts" else 192)
    else:
        fragments = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("fragments") else {}
        write_video(path, counting(COUNT), container_options=KEY | fragments)
    with pytest.raises(UnsupportedInput, match=r"encrypted.*decrypt"):
        open_video(str(path), threads=1)


@pytest.mark.parametrize(("encoding", "track", "refused"), [(1, 1, True), (0, 1, False), (1, 2, False)])
def test_a_webm_is_encrypted_if_its_video_track_says_so(
    tmp_path: Path, encoding: int, track: int, refused: bool
) -> None:
    path = webm(tmp_path / "a.webm", encoding_type=encoding, track_type=track)
    told = pytest.raises(UnsupportedInput, match="encrypted") if refused else nullcontext()
    with path.open("rb") as file, told:
        refuse_encrypted(file)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "ts", "m2ts", "mpg", "avi", "flv", "asf"])
def test_clear_videos_are_not_taken_for_encrypted(tmp_path: Path, ending: str) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "mpg": "mpeg2video", "asf": "mpeg4"}.get(ending, "libx264")
    path = write_video(tmp_path / f"a.{ending}", counting(5), codec=codec, time_base=Fraction(1, 25))
    with path.open("rb") as file:
        refuse_encrypted(file)
