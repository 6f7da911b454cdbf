"""A video is as long as its own pictures last, whatever its container, its sound or its clock say."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.media.open_input import open_input
from deepscan.runtime.media.sampling import Sampling, sampled_frames
from deepscan.runtime.pipeline.messages import VideoDecoded
from deepscan.runtime.pipeline.stages import DecodeStage
from tests.footage import counting, flat, open_video, write_video
from tests.runtime.scenes import tasks_of

COUNT, SECONDS = 50, 2.0
ONE_FRAME = Fraction(1, 25)
GROUPS = {"g": "10", "bf": "2", "sc_threshold": "0"}
FULL, QUICK = Sampling("all"), Sampling("middles", count=16, nearby=True)
SAMPLINGS = {"full": FULL, "quick": QUICK, "ends": Sampling("ends", count=16)}


def decoded(path: Path, sampling: Sampling = FULL) -> VideoDecoded:
    *_, end = DecodeStage(lambda name: open_input(name, threads=1), sampling, detection_side=64)(VideoJob(0, str(path)))
    assert isinstance(end, VideoDecoded)
    assert end.failure is None
    return end


def plain(path: Path, *, start: float = 0.0, count: int = COUNT) -> Path:
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".mpg": "mpeg2video", ".wmv": "msmpeg4v3"}.get(
        path.suffix, "libx264"
    )
    times = None if not start else [start + number / 25 for number in range(count)]
    time_base = ONE_FRAME if path.suffix in (".avi", ".mpg", ".ts", ".wmv") else Fraction(1, 1000)
    options = GROUPS if codec == "libx264" else {"g": "10"}
    return write_video(path, counting(count), codec=codec, times=times, time_base=time_base, options=options)


def with_sound(path: Path, video: Path, seconds: float) -> Path:
    """Copy a video beside silence that begins at 0."""
    with av.open(str(video)) as source, av.open(str(path), "w") as container:
        copied = source.streams.video[0]
        sound: Any = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
        sound.layout = "mono"
        stream = container.add_stream_from_template(copied)
        packets: list[Any] = []
        for number in range(int(seconds * 48000 / 1024)):
            samples: Any = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="flt", layout="mono")
            samples.sample_rate, samples.pts = 48000, 1024 * number
            for resampled in av.AudioResampler(sound.format.name, "mono", 48000).resample(samples):
                resampled.pts = 1024 * number
                packets += sound.encode(resampled)
        packets += sound.encode(None)
        for packet in source.demux(copied):
            if packet.size:
                packet.stream = stream
                packets.append(packet)
        packets.sort(key=lambda packet: float((packet.pts if packet.dts is None else packet.dts) * packet.time_base))
        for packet in packets:
            container.mux(packet)
    return path


def moved(path: Path, video: Path, seconds: float, *, from_packet: int = 0) -> Path:
    """Copy a video whose clock jumps."""
    with av.open(str(video)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size and packet.pts is not None and packet.dts is not None:
                ticks = round(seconds / packet.time_base) if number >= from_packet else 0
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = stream
                container.mux(packet)
    return path


def joined(path: Path, video: Path) -> Path:
    path.write_bytes(2 * video.read_bytes())
    return path


def offset(folder: Path, ending: str) -> Path:
    return plain(folder / f"a.{ending}", start=10.0)


def long_sound(folder: Path, ending: str) -> Path:
    return with_sound(folder / f"b.{ending}", plain(folder / "a.mp4"), 9.0)


def short_sound(folder: Path, ending: str) -> Path:
    return with_sound(folder / f"b.{ending}", plain(folder / "a.mp4"), 0.5)


def late(folder: Path, ending: str) -> Path:
    return with_sound(folder / f"b.{ending}", plain(folder / "a.mp4", start=4.0), 9.0)


def jumps(folder: Path, ending: str) -> Path:
    return moved(folder / f"b.{ending}", plain(folder / "a.mp4"), 46800.0, from_packet=20)


def wraps_around(folder: Path, ending: str) -> Path:
    return moved(folder / f"b.{ending}", plain(folder / "a.mp4"), 2**33 / 90000 - 1.0)


def usual(folder: Path, ending: str) -> Path:
    return plain(folder / f"a.{ending}")


INTACT: dict[Callable[[Path, str], Path], str] = {
    offset: "mp4 mov mkv webm ts flv",
    long_sound: "mp4 mkv ts flv",
    late: "mp4 mkv ts flv",
    short_sound: "mp4 mkv",
    jumps: "mp4 mov mkv ts flv",
    usual: "avi mpg webm h264",
    wraps_around: "ts",
}


@pytest.mark.parametrize(
    ("make", "ending"), [(make, ending) for make, endings in INTACT.items() for ending in endings.split()]
)
def test_intact_videos_are_as_long_as_their_pictures_and_nothing_is_missing(
    tmp_path: Path, make: Callable[[Path, str], Path], ending: str
) -> None:
    path = make(tmp_path, ending)
    for sampling in SAMPLINGS.values():
        end = decoded(path, sampling)
        assert end.frames == (COUNT if sampling is FULL else 16)
        assert end.damage is None
        assert end.info is not None
        assert end.info.duration_seconds == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("ending", ["ts", "mpg", "mkv", "webm", "avi"])
def test_of_joined_files_both_are_seen(tmp_path: Path, ending: str) -> None:
    path = joined(tmp_path / f"b.{ending}", plain(tmp_path / f"a.{ending}"))
    for sampling in SAMPLINGS.values():
        end = decoded(path, sampling)
        assert end.frames == (2 * COUNT if sampling is FULL else 16)
        assert end.damage is None
        assert end.info is not None
        assert end.info.duration_seconds == pytest.approx(2 * SECONDS, abs=0.1)


@pytest.mark.parametrize("ending", ["ts", "mpg", "mkv", "webm"])
@pytest.mark.parametrize("sampling", [FULL, QUICK], ids=str)
def test_joined_files_may_be_short(tmp_path: Path, ending: str, sampling: Sampling) -> None:
    """Matroska has no decoding times, and pictures in another order than their times look like a step back."""
    path = joined(tmp_path / f"b.{ending}", plain(tmp_path / f"a.{ending}", count=15))
    with open_video(str(path), threads=1) as reader:
        found = list(tasks_of(sampled_frames(reader, sampling), sampling))
        assert reader.duration_seconds() == pytest.approx(1.2, abs=0.1)
    assert len(found) == (30 if sampling is FULL else 16)
    assert len([one for one in found if one.starts_shot]) == 2


# Where there is an index, it tells of steps over the key frames before.
@pytest.mark.parametrize(
    ("options", "back"),
    [({"live": "1"}, 0.4), ({"live": "1"}, 1.0), ({"live": "1"}, 2.0), ({}, 1.6), ({}, 2.0)],
    ids=str,
)
def test_a_clock_that_steps_back_within_a_file_hides_nothing(
    tmp_path: Path, back: float, options: dict[str, str]
) -> None:
    times = [number / 25 + (60.0 if number >= COUNT else 0.0) for number in range(2 * COUNT)]
    path = tmp_path / "a.mkv"
    write_video(path, counting(2 * COUNT), times=times, options={"g": "25", "bf": "0"}, container_options=options)
    path.write_bytes(stepping_back(path.read_bytes(), round(1000 * (60 + back))))
    for sampling in SAMPLINGS.values():
        end = decoded(path, sampling)
        assert end.frames == (2 * COUNT if sampling is FULL else 16)
        assert end.info is not None
        assert end.info.duration_seconds == pytest.approx(2 * SECONDS, abs=0.1)


def stepping_back(file: bytes, milliseconds: int) -> bytes:
    """Let the clusters of a Matroska file that begin after a minute begin earlier, in its index as well."""

    def earlier(found: re.Match[bytes]) -> bytes:
        time = int.from_bytes(found[2])
        return found[1] + (time - milliseconds if time >= 60_000 else time).to_bytes(2)

    # A cluster's time follows its size; a cue's stands in a point of the index.
    file = re.sub(rb"(\x1f\x43\xb6\x75.{1,8}?\xe7\x82)(..)", earlier, file, flags=re.DOTALL)
    return re.sub(rb"(\xbb[\x80-\xff]\xb3\x82)(..)", earlier, file, flags=re.DOTALL)


@pytest.mark.parametrize("ending", ["mp4", "flv", "wmv"])
def test_of_joined_files_that_end_with_the_first_one_that_is_told(tmp_path: Path, ending: str) -> None:
    path = joined(tmp_path / f"b.{ending}", plain(tmp_path / f"a.{ending}"))
    for sampling in SAMPLINGS.values():
        assert decoded(path, sampling).damage == "a further file is joined to its end, which was not scanned"


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_slides_last_for_minutes(tmp_path: Path, ending: str) -> None:
    times = [0.0, 60.0, 200.0, 300.0, 600.0]
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    options = {} if ending == "webm" else {"bf": "0"}
    path = write_video(tmp_path / f"a.{ending}", counting(5), codec=codec, times=times, options=options)
    end = decoded(path)
    assert end.info is not None
    assert end.info.duration_seconds is not None
    assert 600.0 < end.info.duration_seconds < 900.0
    assert end.damage is None


def test_the_clock_of_mp4_may_stand_still_after_a_jump(tmp_path: Path) -> None:
    path = moved(tmp_path / "b.mp4", plain(tmp_path / "a.ts"), 46800.0, from_packet=20)  # ticks of 1/90000 s overflow
    for sampling in SAMPLINGS.values():
        end = decoded(path, sampling)
        assert end.frames == (COUNT if sampling is FULL else 16)
        assert end.info is not None
        assert end.info.duration_seconds == pytest.approx(SECONDS, abs=0.2)


@pytest.mark.parametrize(
    ("count", "sampling", "said"),
    [
        (10, QUICK, "looked at 10 of the 16 frames asked for: it has no more"),
        (10, Sampling("first", count=32), "looked at 10 of the 32 frames asked for: it has no more"),
        (10, Sampling("windows", 2, 8), "looked at 10 of the 16 frames asked for (2 windows of 8): it has no more"),
        (16, QUICK, None),
        (16, Sampling("windows", 2, 8), None),
        (10, FULL, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_fewer_frames_than_were_asked_for_are_told(
    tmp_path: Path, count: int, sampling: Sampling, said: str | None, ending: str
) -> None:
    path = write_video(tmp_path / f"a.{ending}", [flat((9 * n, 60, 60), 160, 120) for n in range(count)])
    assert decoded(path, sampling).short == said


def test_frames_that_last_longer_than_a_share_of_the_video_are_told(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mkv",
        counting(40),
        times=[n / 25 if n < 20 else 100 + n / 25 for n in range(40)],
        options={"bf": "0"},
    )
    end = decoded(path, QUICK)
    assert end.frames < 16
    assert (
        end.short == f"looked at {end.frames} of the 16 frames asked for: several of the chosen times fall on one frame"
    )


def test_a_video_without_a_length_in_its_header_gets_its_own(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", counting(COUNT), container_options={"live": "1"})
    for sampling in [*SAMPLINGS.values(), Sampling("first", count=5)]:
        info = decoded(path, sampling).info
        assert info is not None
        assert info.duration_seconds == pytest.approx(SECONDS, abs=1e-3)


@pytest.mark.parametrize("ending", ["ts", "mpg", "mkv"])  # of AVI, FFmpeg counts on
@pytest.mark.parametrize("sampling", [FULL, QUICK, Sampling("windows", 2, 8)], ids=str)
def test_a_joined_file_starts_a_shot(tmp_path: Path, ending: str, sampling: Sampling) -> None:
    path = joined(tmp_path / f"b.{ending}", plain(tmp_path / f"a.{ending}"))
    with open_video(str(path), threads=1) as reader:
        found = list(tasks_of(sampled_frames(reader, sampling), sampling))
    starts = [one.frame.pts_seconds for one in found if one.starts_shot]
    second = min(one.frame.pts_seconds for one in found if one.frame.pts_seconds > SECONDS - 0.03)
    assert starts == [found[0].frame.pts_seconds, second]


def test_a_file_may_be_renamed_while_it_is_searched(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.ts")
    with open_video(str(path), threads=1) as reader:
        path.rename(tmp_path / "b.ts")
        assert len(list(sampled_frames(reader, QUICK))) == 16
