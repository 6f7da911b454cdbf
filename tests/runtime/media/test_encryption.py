"""Encrypted videos are told from damaged ones, and clear ones are not taken for encrypted."""

from __future__ import annotations

from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deepscan.errors import UnsupportedInput
from deepscan.runtime.media.encryption import refuse_encrypted
from tests.footage import counting, open_video, write_video

COUNT = 30
KEY = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "00112233445566778899aabbccddeeff",
    "encryption_kid": "112233445566778899aabbccddeeff00",
}


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
