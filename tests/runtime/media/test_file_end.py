"""Files that were cut off are told, by the sizes that they state of their own parts and by their own lengths."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from deepscan.runtime.media.file_end import file_end
from tests.footage import noise, open_video, write_video

COUNT = 50
FASTSTART = {"movflags": "faststart"}


def whole(path: Path) -> Path:
    codec = {".avi": "mpeg4", ".asf": "mpeg4", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
    time_base = Fraction(1, 25) if codec == "mpeg4" else Fraction(1, 1000)
    options = FASTSTART if path.suffix in (".mp4", ".mov") else None
    return write_video(path, noise(COUNT), codec=codec, time_base=time_base, container_options=options)


def cut(path: Path, share: float) -> Path:
    os.truncate(path, round(path.stat().st_size * share))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "avi", "asf", "flv", "ts", "h264"])
def test_of_whole_files_nothing_is_missing(tmp_path: Path, ending: str) -> None:
    path = whole(tmp_path / f"a.{ending}")
    with path.open("rb") as file:
        end = file_end(file)
    assert end.missing_share is None
    assert not end.is_odd


@pytest.mark.parametrize("share", [0.5, 0.96, 0.99])
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "avi", "asf"])
def test_the_missing_share_of_the_bytes_is_reported_in_every_mode(tmp_path: Path, ending: str, share: float) -> None:
    path = cut(whole(tmp_path / f"a.{ending}"), share)
    with path.open("rb") as file:
        assert file_end(file).missing_share == pytest.approx(1 - share, abs=2e-3)
    said = f"the file is damaged: {round(100 - 100 * share)} % of its bytes are missing at its end"
    with open_video(str(path), threads=1) as reader:
        assert list(reader.frames())
        assert said in str(reader.warnings())
    with open_video(str(path), threads=1) as reader:
        assert list(reader.frames_at([0.1, 0.3], tolerance_seconds=0.0))
        assert said in str(reader.warnings())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_the_missing_seconds_are_reported_to_a_few_frames(tmp_path: Path, ending: str) -> None:
    path = cut(whole(tmp_path / f"a.{ending}"), 0.85)
    with open_video(str(path), threads=1) as reader:
        reached = len(list(reader.frames())) / 25
        assert f"only the first {reached:.1f} of 2.0 seconds could be decoded" in str(reader.warnings())


def test_a_live_stream_states_no_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", noise(COUNT), container_options={"live": "1"})
    with cut(path, 0.7).open("rb") as file:
        assert file_end(file).missing_share is None
