"""Single frames at given times, by seeking; how long a video is; how much is decoded for it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from deepscan.runtime.media.frames import Frame
from tests.footage import counting, noise, number_of, open_video, quadrants, write_video

COUNT = 50
HALF_FRAME = 0.02
ONE_FRAME = Fraction(1, 25)
TICK = Fraction(1, 1000)


class Kind(NamedTuple):
    """One way to encode a video with a key frame every ten frames."""

    codec: str
    ending: str
    options: dict[str, str] = {}  # noqa: RUF012
    time_base: Fraction = TICK
    live: bool = False  # written as a stream, without an index and without a duration

    def __str__(self) -> str:
        return f"{self.codec}-{self.ending}{'-live' if self.live else ''}"


B_FRAMES = {"g": "10", "bf": "3", "sc_threshold": "0"}
OPEN_GROUPS = {"x265-params": "log-level=none:keyint=10:min-keyint=10:open-gop=1:scenecut=0"}
FINE = {"qmin": "1", "qmax": "1"}
KINDS = [
    Kind("libx264", "mp4", B_FRAMES),
    Kind("libx264", "mkv", B_FRAMES),
    Kind("libx264", "mkv", B_FRAMES, live=True),
    Kind("libx264", "ts", B_FRAMES, ONE_FRAME),
    Kind("libx264", "h264", B_FRAMES),
    Kind("libx264", "flv", B_FRAMES),
    Kind("libx265", "mov", OPEN_GROUPS),
    Kind("libvpx-vp9", "webm", {"g": "10"}),
    Kind("libsvtav1", "mp4", {"g": "10", "preset": "10"}),
    Kind("mpeg4", "avi", FINE | {"g": "10", "bf": "2"}, ONE_FRAME),
    Kind("mpeg2video", "ts", FINE | {"g": "10", "bf": "2"}, ONE_FRAME),
]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def counted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: Kind = request.param
    return write_video(
        tmp_path_factory.mktemp("seeking") / f"video.{kind.ending}",
        counting(COUNT),
        codec=kind.codec,
        options=kind.options,
        time_base=kind.time_base,
        container_options={"live": "1"} if kind.live else None,
    )


def found_at(path: Path, seconds: list[float], *, tolerance: float) -> list[tuple[Frame, int]]:
    """Return the frames for these times, and which of the `counting` pictures they show."""
    with open_video(str(path), threads=1) as reader:
        frames = list(reader.frames_at(seconds, tolerance_seconds=tolerance))
        return [(frame, number_of(reader.shrink(frame, 64))) for frame in frames]


def all_times(path: Path) -> list[float]:
    with open_video(str(path), threads=1) as reader:
        return [frame.pts_seconds for frame in reader.frames()]


@pytest.mark.parametrize(
    "wanted", [[0], [49], [0, 49], [10], [9, 10, 11], [3, 19, 20, 21, 38, 41], [5, 25, 45], list(range(50))], ids=str
)
def test_exact_times_give_exactly_their_frames(counted: Path, wanted: list[int]) -> None:
    times = all_times(counted)
    found = found_at(counted, [times[number] for number in wanted], tolerance=0.0)
    assert [number for _, number in found] == wanted
    assert [frame.pts_seconds for frame, _ in found] == pytest.approx([times[number] for number in wanted], abs=1e-3)


def test_times_between_frames_give_the_next_within_half_a_frame(counted: Path) -> None:
    times = all_times(counted)
    wanted = [times[7] + 0.3 * HALF_FRAME, times[20] - 0.3 * HALF_FRAME, times[33] - 0.9 * HALF_FRAME]
    assert [number for _, number in found_at(counted, wanted, tolerance=0.0)] == [7, 20, 33]


@pytest.mark.parametrize("tolerance", [0.0, 0.2, 0.5, 3.0])
def test_no_frame_comes_twice_and_time_never_goes_back(counted: Path, tolerance: float) -> None:
    dense = [0.0, 0.001, 0.01, 0.03, 0.3, 0.31, 0.5, 0.52, 0.55, 0.8, 0.81, 1.2, 1.5, 1.9, 1.95, 2.0, 9.0]
    found = found_at(counted, dense, tolerance=tolerance)
    assert all(after.pts_seconds > before.pts_seconds for (before, _), (after, _) in pairwise(found))
    assert all(after > before for (_, before), (_, after) in pairwise(found))


def test_a_key_frame_within_the_tolerance_stands_in(counted: Path) -> None:
    wanted = [0.5, 1.0, 1.5]
    found = found_at(counted, wanted, tolerance=0.48)
    assert len(found) == 3
    assert all(frame.key_frame for frame, _ in found)
    assert all(frame.pts_seconds >= target - 0.48 - 1e-6 for (frame, _), target in zip(found, wanted, strict=True))


def test_times_after_the_end_give_a_frame_only_where_there_is_no_other(counted: Path) -> None:
    assert len(found_at(counted, [7.0, 8.0], tolerance=0.0)) == 1
    assert len(found_at(counted, [0.2, 7.0, 8.0], tolerance=0.0)) == 1


def windows_in(path: Path, starts: list[float], frames_each: int) -> list[tuple[int, int]]:
    """Return the number of the window of each frame, and which of the `counting` pictures it shows."""
    with open_video(str(path), threads=1) as reader:
        found = reader.windows(starts, frames_each, tolerance_seconds=0.0)
        return [(window, number_of(reader.shrink(frame, 64))) for window, frame in found]


def test_windows_after_the_end_give_one_only_where_there_is_no_other(counted: Path) -> None:
    found = windows_in(counted, [7.0, 8.0], 3)
    # A raw stream has no way back: its last frame is all there is left.
    assert [window for window, _ in found] == [0] * (1 if counted.suffix == ".h264" else 3)
    assert [number for _, number in found] == [found[0][1] + step for step in range(len(found))]
    assert windows_in(counted, [0.0, 7.0], 3) == [(0, 0), (0, 1), (0, 2)]


def test_a_file_cut_off_before_all_times_still_gives_a_frame(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    path = write_video(tmp_path / "video.mp4", noise(COUNT), options={"g": "5"}, container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 4])
    assert len(all_times(path)) < 25
    assert len(found_at(path, [1.2, 1.6], tolerance=0.0)) == 1


def test_a_video_says_how_long_it_is_or_is_read_through(counted: Path) -> None:
    with open_video(str(counted), threads=1) as reader:
        assert reader.duration_seconds() == pytest.approx(COUNT / 25, abs=0.09)
        assert reader.info.duration_seconds == reader.duration_seconds()
        assert sum(1 for _ in reader.frames()) == COUNT
        assert reader.warnings() is None


def test_a_raw_stream_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.h264", counting(30))
    with open_video(str(path), threads=1) as reader:
        assert reader.info.duration_seconds is None
        assert reader.duration_seconds() == pytest.approx(30 / 25)


def test_a_stream_that_begins_late_and_says_nothing_is_measured(tmp_path: Path) -> None:
    times = [5 + number / 25 for number in range(30)]
    path = write_video(tmp_path / "video.mkv", counting(30), times=times, container_options={"live": "1"})
    with open_video(str(path), threads=1) as reader:
        assert reader.info.duration_seconds is None
        assert reader.duration_seconds() == pytest.approx(30 / 25, abs=1e-3)


@pytest.mark.parametrize(("codec", "ending"), [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("libx264", "mkv")])
def test_little_is_decoded_where_key_frames_lie_well(tmp_path: Path, codec: str, ending: str) -> None:
    options = {"g": "5", "keyint_min": "5", "bf": "0", "sc_threshold": "0"}
    path = write_video(tmp_path / f"video.{ending}", counting(COUNT), codec=codec, options=options)
    found = found_at(path, [0.3, 0.7, 1.1, 1.5, 1.9], tolerance=0.3)
    assert len(found) == 5
    assert found[-1][0].index < 5  # `index` counts the decoded frames


@pytest.mark.parametrize(("codec", "ending"), [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("libx264", "mkv")])
def test_exact_times_decode_only_their_group_of_pictures(tmp_path: Path, codec: str, ending: str) -> None:
    clusters = {"cluster_time_limit": "400"} if ending in ("mkv", "webm") else None  # The index is read at a seek.
    path = tmp_path / f"video.{ending}"
    options = {"g": "10", "bf": "2", "sc_threshold": "0"} if codec == "libx264" else {"g": "10"}
    write_video(path, noise(COUNT), codec=codec, options=options, container_options=clusters)
    [_, (frame, _)] = found_at(path, [0.0, 42 / 25], tolerance=0.0)
    assert frame.pts_seconds == pytest.approx(42 / 25)
    assert frame.index < 20  # With B frames, the group before may be needed.


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "h264", "gif"])
@pytest.mark.parametrize("seconds", [[0.0], [0.02], [0.0, 0.5]], ids=str)
def test_a_video_of_one_frame_gives_that_frame(tmp_path: Path, ending: str, seconds: list[float]) -> None:
    gif = ending == "gif"
    path = tmp_path / f"video.{ending}"
    write_video(path, [quadrants()], codec="gif" if gif else "libx264", pixel_format="rgb8" if gif else "yuv420p")
    with open_video(str(path), threads=1) as reader:
        assert reader.duration_seconds() > 0
        assert [frame.index for frame in reader.frames_at(seconds, tolerance_seconds=0.0)] == [0]
