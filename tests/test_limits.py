"""Inputs that ask for more than they may, and headers that lie about it: refused with a number, or cut and told."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from msgspec import structs
from PIL import Image

from deepscan.errors import OverLimit, UnreadableInput, UsageError
from deepscan.limits import CUT_BY_TRUNCATING, OPTIONS, Limits, OnLimit
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.face_selection import FaceSelection
from deepscan.runtime.media.frame_tasks import FrameTask, VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.media.sampling import LengthLimit, Sampling, sampled_frames
from deepscan.runtime.pipeline.messages import SecondPass, ToFaces, VideoDecoded
from deepscan.runtime.pipeline.stages import DecodeStage
from tests.footage import counting, noise, write_video

SECONDS, RATE = 4, 10
ALL = Sampling("all", detect_every=5)
SAMPLINGS = [
    ALL,
    Sampling("first", count=1000),
    Sampling("first", count=1000, twice=True),
    Sampling("middles", count=8),
    Sampling("ends", count=8, nearby=True),
    Sampling("windows", count=4, window_frames=5),
    Sampling("windows", count=2, window_frames=1000),
]
GROWING = [ALL, Sampling("middles", count=8), Sampling("windows", count=2, window_frames=9)]
HOW_LARGE = "Its frames have 352 x 288 = 101,376 pixels, and --max-pixels is 4,000: raise that to have it scanned."


def video(path: Path) -> Path:
    """Write four seconds of ten frames each, every fifth a key frame."""
    return write_video(path, counting(SECONDS * RATE), rate=RATE, options={"g": "5"})


def decoded(path: Path, sampling: Sampling, limits: Limits) -> tuple[list[ToFaces], VideoDecoded]:
    opened = partial(open_input, threads=1, limits=limits)
    stage = DecodeStage(opened, sampling, detection_side=DETECTION_SIDE, limits=limits)
    *messages, end = stage(VideoJob(0, str(path)))
    assert isinstance(end, VideoDecoded)
    return messages, end


def refusal_of(path: Path, limits: Limits, sampling: Sampling = ALL) -> tuple[int, str]:
    """Return how many frames came before a video was refused, and in what words."""
    messages, end = decoded(path, sampling, limits)
    assert isinstance(end.failure, OverLimit)
    assert end.failure.status == "over_limit"
    assert ". " not in str(end.failure)
    return len(messages), str(end.failure)


def states_seconds(path: Path, seconds: float) -> Path:
    """Let a Matroska file say that it is so long."""
    data = path.read_bytes()
    place = data.index(b"\x44\x89\x88") + 3  # Duration, eight bytes long, in milliseconds
    path.write_bytes(data[:place] + struct.pack(">d", seconds * 1000) + data[place + 8 :])
    return path


def test_limits_are_plain_numbers_and_each_has_an_option() -> None:
    limits = Limits(seconds=1.5, tracks=None, on_limit="truncate")
    plain = structs.asdict(limits)
    assert Limits(**json.loads(json.dumps(plain))) == limits
    assert set(plain) == {*OPTIONS, "on_limit"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds": -1.0},
        {"frames": -1},
        {"seconds": float("nan")},
        {"on_limit": "stop"},
        {"faces": 2.5},
        {"tracks": True},
        {"pixels": "1"},
        {"file_bytes": 10**30},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=rf"^limits\.{name} "):
        Limits(**wrong)


def test_limits_may_be_numbers_of_numpy_and_become_plain_ones() -> None:
    limits = Limits(frames=np.int64(5), seconds=np.float32(1.5), faces=np.uint8(0))  # type: ignore[arg-type]
    assert [type(value) for value in (limits.frames, limits.seconds, limits.faces)] == [int, float, int]
    assert limits == Limits(frames=5, seconds=1.5, faces=0)


def test_scores_depend_on_the_limits_only_where_videos_are_cut() -> None:
    assert Limits().scoring() == Limits(frames=7).scoring() == {}
    cut = Limits(on_limit="truncate")
    for name in OPTIONS:
        other: dict[str, Any] = {"on_limit": "truncate", name: 7}
        assert (Limits(**other).scoring() != cut.scoring()) == (name in CUT_BY_TRUNCATING)
    assert structs.replace(cut, faces=0).scoring() == structs.replace(cut, faces=None).scoring()


@pytest.mark.parametrize("on_limit", ["skip", "truncate"])
@pytest.mark.parametrize("none", [None, 0])
def test_without_limits_nothing_is_refused(tmp_path: Path, none: int | None, on_limit: OnLimit) -> None:
    nothing: dict[str, Any] = {**dict.fromkeys(OPTIONS, none), "on_limit": on_limit}
    limits = Limits(**nothing)
    messages, end = decoded(video(tmp_path / "a.mkv"), ALL, limits)
    assert (len(messages), end.failure, end.damage) == (SECONDS * RATE, None, None)
    selection = FaceSelection(1, limits)
    boxes = np.tile(np.array([0, 0, 9, 9], dtype=np.float32), (999, 1))
    crowd = Faces(boxes, np.zeros((999, 5, 2), np.float32), np.ones(999, np.float32))
    assert selection.kept(crowd).tolist() == list(range(999))
    assert selection.takes_track(10**9)


def test_what_is_exactly_at_its_limits_is_taken_whole(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv")
    limits = Limits(
        file_bytes=path.stat().st_size, pixels=64 * 48, frames=SECONDS * RATE, seconds=float(SECONDS), streams=1
    )
    messages, end = decoded(path, ALL, limits)
    assert (len(messages), end.failure, end.damage) == (SECONDS * RATE, None, None)


@pytest.mark.parametrize("on_limit", ["skip", "truncate"])
def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, on_limit: OnLimit) -> None:
    path = video(tmp_path / "a.mkv")
    os.truncate(path, 1 << 40)  # a hole: reading it would take hours
    frames, said = refusal_of(path, Limits(on_limit=on_limit))
    assert frames == 0
    assert f"{1 << 40:,} bytes" in said
    assert "--max-file-size" in said


@pytest.mark.parametrize("on_limit", ["skip", "truncate"])
def test_frames_that_are_too_large_are_refused(tmp_path: Path, on_limit: OnLimit) -> None:
    frames, said = refusal_of(video(tmp_path / "a.mp4"), Limits(pixels=64 * 48 - 1, on_limit=on_limit))
    assert frames == 0
    assert "64 x 48 = 3,072 pixels" in said
    assert "--max-pixels is 3,071" in said


@pytest.mark.parametrize(
    ("codec", "ending"),
    [
        ("libvpx-vp9", "webm"),
        ("libvpx-vp9", "mp4"),
        ("libsvtav1", "mkv"),
        ("mpeg4", "avi"),
        ("mpeg4", "mp4"),
        ("mpeg4", "m4v"),
        ("h263", "3gp"),
        ("flv", "flv"),
        ("mpeg2video", "ts"),
        ("mpeg2video", "mpg"),
        ("wmv2", "asf"),
        ("mjpeg", "avi"),
        ("ffv1", "mkv"),
    ],
)
def test_frames_that_no_decoder_may_touch_are_over_the_limit_whatever_the_codec(
    tmp_path: Path, codec: str, ending: str
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(
        tmp_path / f"a.{ending}", noise(3, 352, 288), codec=codec, pixel_format=pixel_format, time_base=Fraction(1, 25)
    )
    for sampling in GROWING:
        assert refusal_of(path, Limits(pixels=4000), sampling) == (0, HOW_LARGE)
    assert decoded(path, ALL, Limits(pixels=352 * 288))[1].failure is None


def test_a_damaged_video_within_the_limit_is_unreadable_and_not_over_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", noise(3), codec="mpeg4", time_base=Fraction(1, 25))
    data = path.read_bytes()
    start = data.index(b"movi") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    _, end = decoded(path, ALL, Limits(pixels=64 * 48))
    assert isinstance(end.failure, UnreadableInput)


def test_a_picture_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48)).save(path)
    assert refusal_of(path, Limits(pixels=3071))[0] == 0
    assert decoded(path, ALL, Limits(pixels=3072))[1].failure is None


def growing(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Write a video whose frames become larger in the middle."""
    parts = [write_video(folder / f"{width}x{height}.h264", noise(10, width, height)) for width, height in sizes]
    path = folder / "grows.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("sampling", GROWING)
def test_frames_that_grow_a_little_in_the_middle_are_refused_there(tmp_path: Path, sampling: Sampling) -> None:
    path = growing(tmp_path, [(320, 240), (320, 256)])
    frames, said = refusal_of(path, Limits(pixels=320 * 240), sampling)
    assert frames < 10
    assert "320 x 256" in said


@pytest.mark.parametrize("sampling", GROWING)
def test_frames_that_grow_much_are_not_even_decoded_and_the_row_says_so(tmp_path: Path, sampling: Sampling) -> None:
    messages, end = decoded(growing(tmp_path, [(64, 48), (320, 240)]), sampling, Limits(pixels=64 * 48))
    assert {(message.frame.geometry.width, message.frame.geometry.height) for message in messages} == {(64, 48)}  # type: ignore[union-attr]
    assert end.failure is None
    assert "damaged" in str(end.damage)


def test_a_header_that_understates_the_size_of_frames_helps_nobody(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4")
    data = bytearray(path.read_bytes())
    place = data.index(b"avc1", data.index(b"stsd")) + 28
    assert struct.unpack_from(">HH", data, place) == (64, 48)
    struct.pack_into(">HH", data, place, 16, 16)
    path.write_bytes(data)
    assert "64 x 48" in refusal_of(path, Limits(pixels=64 * 48 - 1))[1]


def with_tracks(path: Path, count: int) -> Path:
    """Write an MP4 file that lists its one stream so many times."""
    data = video(path).read_bytes()
    moov = data.index(b"moov") - 4
    trak = data.index(b"trak", moov) - 4
    after = trak + struct.unpack_from(">I", data, trak)[0]
    content = data[moov + 8 : trak] + data[trak:after] * count + data[after:]
    path.write_bytes(data[:moov] + struct.pack(">I4s", len(content) + 8, b"moov") + content)
    return path


@pytest.mark.parametrize("on_limit", ["skip", "truncate"])
def test_a_file_of_too_many_streams_is_refused(tmp_path: Path, on_limit: OnLimit) -> None:
    path = with_tracks(tmp_path / "a.mp4", 130)
    assert "130 streams" in refusal_of(path, Limits(on_limit=on_limit))[1]
    assert decoded(path, Sampling("first", count=1), Limits(streams=130))[1].failure is None


def test_of_more_streams_than_ffmpeg_takes_it_is_told_whatever_the_limit(tmp_path: Path) -> None:
    assert "1,000 streams" in refusal_of(with_tracks(tmp_path / "a.mp4", 1200), Limits(streams=None))[1]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_video_that_says_it_is_too_long_is_refused_before_a_frame_is_decoded(
    tmp_path: Path, sampling: Sampling
) -> None:
    times = [1000.0 * number for number in range(50)]
    path = write_video(tmp_path / "a.mkv", counting(50), times=times, rate=1, options={"bf": "0"})
    frames, said = refusal_of(path, Limits(), sampling)
    assert frames == 0
    assert "49,001.0 seconds" in said
    assert "--max-duration is 43,200.0" in said


@pytest.mark.parametrize("sampling", SAMPLINGS[:-1], ids=str)
def test_a_video_is_as_long_as_its_pictures_last_whatever_its_header_says(tmp_path: Path, sampling: Sampling) -> None:
    _, end = decoded(states_seconds(video(tmp_path / "a.mkv"), 1e6), sampling, Limits())
    assert end.failure is None
    assert end.info is not None
    assert end.info.duration_seconds == pytest.approx(SECONDS, abs=1e-3)


@pytest.mark.parametrize("ending", ["mkv", "h264"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_video_that_goes_on_too_long_is_refused_or_cut_there(tmp_path: Path, sampling: Sampling, ending: str) -> None:
    path = video(tmp_path / f"a.{ending}")
    if ending == "mkv":
        states_seconds(path, 1.9)  # the truth would be refused at once
    seconds, rate = (2.0, RATE) if ending == "mkv" else (1.0, 25)  # a raw stream has no times
    limits = Limits(seconds=seconds)
    if ending == "h264" or sampling.choice == "all":
        assert refusal_of(path, limits, sampling)[0] <= seconds * rate + 1
    messages, end = decoded(path, sampling, structs.replace(limits, on_limit="truncate"))
    times = [message.frame.pts_seconds for message in messages if isinstance(message, FrameTask)]
    assert end.failure is None
    assert 0 < len(times) <= (seconds * rate + 1) * (2 if sampling.twice else 1)
    assert max(times) <= seconds + 1e-6
    if ending == "h264":
        assert len(times) == 8 or sampling.choice != "middles"  # spread over what may be looked at
        assert "only the first 1.0 seconds were scanned (see --max-duration)" in str(end.damage)


@pytest.mark.parametrize("sampling", SAMPLINGS[:-1], ids=str)
def test_too_many_frames_are_refused_or_cut_there(tmp_path: Path, sampling: Sampling) -> None:
    path = video(tmp_path / "a.mp4")
    frames, said = refusal_of(path, Limits(frames=6), sampling)
    assert frames <= 6
    assert "7 or more frames" in said
    assert "--max-frames is 6" in said
    messages, end = decoded(path, sampling, Limits(frames=6, on_limit="truncate"))
    whole, _ = decoded(path, sampling, Limits())
    assert end.frames == 6
    assert end.damage == "only the first 6 frames were scanned (see --max-frames)"
    kept = [message.frame.pts_seconds for message in messages if isinstance(message, FrameTask)]
    everything = [message.frame.pts_seconds for message in whole if isinstance(message, FrameTask)]
    if sampling.twice:
        assert [isinstance(message, SecondPass) for message in messages] == [False] * 6 + [True] + [False] * 6
        assert kept == everything[:6] * 2
    else:
        assert kept == everything[:6]


class Counted(FileIO):
    """A file that knows how much of it was read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data or b"")
        return data or b""


@pytest.mark.parametrize("sampling", [ALL, Sampling("first", count=150)], ids=str)
def test_of_a_video_that_is_cut_little_more_is_read(tmp_path: Path, sampling: Sampling) -> None:
    path = write_video(tmp_path / "a.mkv", noise(200, 160, 120), options={"g": "10"})
    file = Counted(path)
    length = LengthLimit(Limits(frames=5, on_limit="truncate"))
    with PyAVReader(str(path), cast(BinaryIO, file), threads=1) as reader:
        assert len(list(sampled_frames(reader, sampling, length))) == 5
    assert 0 < file.count < path.stat().st_size / 4
