"""Windows of consecutive frames, by seeking, in real videos; and how they are spread over a video."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from deepscan.errors import UnreadableInput
from deepscan.runtime.media.frame_tasks import FrameTask
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.media.sampling import Sampling, sampled_frames
from tests.footage import counting, noise, number_of, open_video, write_video
from tests.runtime.scenes import tasks_of

COUNT = 50
RATE = 25
TICK = Fraction(1, 1000)
ONE_FRAME = Fraction(1, RATE)


class Kind(NamedTuple):
    """One way to encode a video."""

    codec: str
    ending: str
    options: dict[str, str]
    time_base: Fraction = TICK
    live: bool = False  # written as a stream, without an index and without a duration

    def __str__(self) -> str:
        return f"{self.codec}-{self.ending}-{self.options.get('g', 'open')}{'-live' if self.live else ''}"


def h264(group: int) -> dict[str, str]:
    return {"g": str(group), "bf": "3", "sc_threshold": "0"}


FINE = {"qmin": "1", "qmax": "1"}
OPEN_GROUPS = {"x265-params": "log-level=none:keyint=10:min-keyint=10:open-gop=1:scenecut=0"}
KINDS = [
    Kind("libx264", "mp4", h264(1)),
    Kind("libx264", "mp4", h264(6)),
    Kind("libx264", "mp4", h264(25)),
    Kind("libx264", "mp4", h264(250)),
    Kind("libx264", "mkv", h264(10)),
    Kind("libx264", "mkv", h264(10), live=True),
    Kind("libx264", "ts", h264(10), ONE_FRAME),
    Kind("libx265", "mp4", OPEN_GROUPS),
    Kind("libvpx-vp9", "webm", {"g": "7"}),
    Kind("libvpx-vp9", "webm", {"g": "100"}),
    Kind("mpeg4", "avi", FINE | {"g": "12"}, ONE_FRAME),
    Kind("mpeg4", "avi", FINE | {"g": "9", "bf": "2"}, ONE_FRAME),
]


def encoded(folder: Path, kind: Kind) -> Path:
    return write_video(
        folder / f"video.{kind.ending}",
        counting(COUNT),
        codec=kind.codec,
        options=kind.options,
        time_base=kind.time_base,
        container_options={"live": "1"} if kind.live else None,
    )


@pytest.fixture(scope="module", params=KINDS, ids=str)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded(tmp_path_factory.mktemp("windows"), request.param)


def windows_at(
    path: Path, starts: list[float], frames_each: int, *, tolerance: float = 0.0
) -> list[tuple[int, Frame, int]]:
    """Return the frames of these windows: window, frame, and which of the `counting` pictures it shows."""
    with open_video(str(path), threads=1) as reader:
        return [
            (window, frame, number_of(reader.shrink(frame, 64)))
            for window, frame in reader.windows(starts, frames_each, tolerance_seconds=tolerance)
        ]


def shown(found: list[tuple[int, Frame, int]]) -> dict[int, list[int]]:
    by_window: dict[int, list[int]] = defaultdict(list)
    for window, _, number in found:
        by_window[window].append(number)
    return dict(by_window)


def all_times(path: Path) -> list[float]:
    with open_video(str(path), threads=1) as reader:
        return [frame.pts_seconds for frame in reader.frames()]


@pytest.mark.parametrize("first", [[0], [42], [7, 23, 40], [0, 8, 16, 24, 32, 40], [3, 12, 20, 41]], ids=str)
def test_windows_hold_exactly_the_frames_from_their_starts_on(video: Path, first: list[int]) -> None:
    times = all_times(video)
    found = windows_at(video, [times[number] for number in first], 8)
    assert shown(found) == {window: list(range(start, start + 8)) for window, start in enumerate(first)}
    for _, frame, number in found:
        assert frame.pts_seconds == pytest.approx(times[number], abs=1e-3)


def test_windows_of_one_frame_are_single_frames(video: Path) -> None:
    times = all_times(video)
    assert shown(windows_at(video, [times[5], times[30]], 1)) == {0: [5], 1: [30]}


def test_a_start_between_two_frames_takes_the_nearer(video: Path) -> None:
    times = all_times(video)
    found = windows_at(video, [times[10] + 0.3 / RATE, times[30] - 0.3 / RATE], 3)
    assert shown(found) == {0: [10, 11, 12], 1: [30, 31, 32]}


def test_the_end_of_the_video_ends_a_window(video: Path) -> None:
    times = all_times(video)
    assert shown(windows_at(video, [times[20], times[45]], 8)) == {0: list(range(20, 28)), 1: list(range(45, 50))}


@pytest.mark.parametrize("tolerance", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    ("first", "length"),
    [([5, 9, 10, 40], 8), ([4, 24, 35, 36], 1), ([6, 7, 17, 29], 2), ([16, 32, 38], 1), ([16, 32, 38], 4)],
    ids=str,
)
def test_windows_share_no_frame_however_close_or_far_they_lie(
    video: Path, first: list[int], length: int, tolerance: float
) -> None:
    times = all_times(video)
    found = windows_at(video, [times[number] for number in first], length, tolerance=tolerance)
    numbers = [number for *_, number in found]
    assert numbers == sorted(set(numbers))
    assert all(after.pts_seconds > before.pts_seconds for (_, before, _), (_, after, _) in pairwise(found))
    assert [window for window, *_ in found] == sorted(window for window, *_ in found)
    for run in shown(found).values():
        assert run == list(range(run[0], run[0] + len(run)))


@pytest.mark.parametrize("tolerance", [0.1, 0.3, 0.5])
def test_a_key_frame_within_the_tolerance_begins_a_window(video: Path, tolerance: float) -> None:
    times = all_times(video)
    starts = [times[number] for number in (3, 17, 31)]
    found = windows_at(video, starts, 6, tolerance=tolerance)
    for window, run in shown(found).items():
        assert run == list(range(run[0], run[0] + 6))
        start = starts[window]
        assert start - tolerance - 1e-3 <= times[run[0]] <= start + 0.5 / RATE
        begins = next(frame for which, frame, _ in found if which == window)
        if times[run[0]] < start - 0.5 / RATE:
            assert begins.key_frame


def test_a_window_begins_at_the_key_frame_before_its_time(tmp_path: Path) -> None:
    path = encoded(tmp_path, Kind("libx264", "mp4", h264(10)))
    found = windows_at(path, [0.5, 1.3], 6, tolerance=0.2)
    assert shown(found) == {0: list(range(10, 16)), 1: list(range(30, 36))}
    exact = windows_at(path, [0.5, 1.3], 6, tolerance=0.0)
    assert found[-1][1].index < exact[-1][1].index  # `index` counts the decoded frames


@pytest.mark.parametrize(
    "kind",
    [
        Kind("libx264", "mp4", h264(5)),
        Kind("libvpx-vp9", "webm", {"g": "5"}),
        Kind("mpeg4", "avi", FINE | {"g": "5"}, ONE_FRAME),
    ],
    ids=str,
)
def test_what_lies_between_windows_is_not_decoded(tmp_path: Path, kind: Kind) -> None:
    clusters = {"cluster_time_limit": "400"} if kind.ending == "webm" else None  # The index is read at a seek.
    path = write_video(
        tmp_path / f"video.{kind.ending}",
        noise(100),
        codec=kind.codec,
        options=kind.options,
        time_base=kind.time_base,
        container_options=clusters,
    )
    found = windows_at(path, [0.2, 3.2], 6)
    assert [frame.pts_seconds for _, frame, _ in found[6:]] == pytest.approx(
        [3.2 + n / RATE for n in range(6)], abs=2e-3
    )
    assert len(found) == 12
    assert found[-1][1].index < 45


def test_times_after_the_end_give_the_first_window_instead(tmp_path: Path) -> None:
    path = encoded(tmp_path, Kind("libx264", "mp4", h264(10)))
    assert shown(windows_at(path, [7.0, 8.0], 6)) == {0: list(range(6))}
    assert shown(windows_at(path, [0.4, 7.0], 6)) == {0: list(range(10, 16))}


def cut_off(folder: Path, share: float) -> Path:
    """Return a file of which only the first part was copied: its header tells of all 50 frames."""
    path = write_video(
        folder / "video.mp4", noise(COUNT), options={"g": "5"}, container_options={"movflags": "faststart"}
    )
    data = path.read_bytes()
    begin = data.index(b"mdat")
    path.write_bytes(data[: begin + round(share * (len(data) - begin))])
    return path


def test_a_cut_off_file_gives_the_windows_that_are_there(tmp_path: Path) -> None:
    path = cut_off(tmp_path, 0.5)
    there = len(all_times(path))
    assert 15 < there < 35
    with open_video(str(path), threads=1) as reader:
        found = list(reader.windows([0.0, 0.4, 1.6], 6, tolerance_seconds=0.0))
    assert {window for window, _ in found} == {0, 1}
    assert len(found) == 12


def test_a_file_cut_off_before_all_windows_gives_its_beginning(tmp_path: Path) -> None:
    path = cut_off(tmp_path, 0.25)
    with open_video(str(path), threads=1) as reader:
        found = list(reader.windows([1.2, 1.6], 6, tolerance_seconds=0.0))
        assert [window for window, _ in found] == [0] * 6
        assert [frame.pts_seconds for _, frame in found] == pytest.approx([n / RATE for n in range(6)], abs=1e-3)


def test_a_file_without_a_frame_is_refused(tmp_path: Path) -> None:
    path = cut_off(tmp_path, 0.0)
    with open_video(str(path), threads=1) as reader, pytest.raises(UnreadableInput):
        list(reader.windows([0.0, 1.0], 6, tolerance_seconds=0.0))


# How `quick` spreads them.


def marked(reader: PyAVReader, sampling: Sampling) -> list[FrameTask]:
    return list(tasks_of(sampled_frames(reader, sampling), sampling))


def runs_of(found: list[FrameTask], numbers: list[int]) -> list[list[int]]:
    """Part the numbers of frames where positions do."""
    runs: list[list[int]] = []
    for place, (one, number) in enumerate(zip(found, numbers, strict=True)):
        if place == 0 or one.position != found[place - 1].position + 1:
            runs.append([])
        runs[-1].append(number)
    return runs


@pytest.mark.parametrize(
    ("count", "length", "middles"),
    [(1, 8, [25]), (2, 8, [12.5, 37.5]), (3, 8, [8.3, 25, 41.7]), (4, 6, [6.25, 18.75, 31.25, 43.75])],
)
def test_windows_lie_in_the_middles_of_equal_parts(video: Path, count: int, length: int, middles: list[float]) -> None:
    sampling = Sampling("windows", count=count, window_frames=length, detect_every=3)
    with open_video(str(video), threads=1) as reader:
        found = marked(reader, sampling)
        runs = runs_of(found, [number_of(reader.shrink(one.frame, 64)) for one in found])
    part = COUNT / count
    assert len(runs) == count
    for number, (run, middle) in enumerate(zip(runs, middles, strict=True)):
        assert run == list(range(run[0], run[0] + length))
        assert part * number - 1 <= run[0] <= middle - length / 2 + 1.5  # a key frame may begin it early
        assert run[-1] <= part * (number + 1)


def test_a_video_that_is_shorter_than_its_windows_is_taken_whole(video: Path) -> None:
    sampling = Sampling("windows", count=4, window_frames=32, detect_every=3)
    with open_video(str(video), threads=1) as reader:
        found = marked(reader, sampling)
        assert [number_of(reader.shrink(one.frame, 64)) for one in found] == list(range(COUNT))
    assert [one.position for one in found] == list(range(COUNT))
    assert {one.frame.index for one in found if one.small is not None} == {*range(0, COUNT, 3), COUNT - 1}


def test_each_window_is_searched_at_both_ends_and_never_interpolated_across(tmp_path: Path) -> None:
    path = encoded(tmp_path, Kind("libx264", "mp4", h264(5)))
    sampling = Sampling("windows", count=3, window_frames=8, detect_every=5)
    with open_video(str(path), threads=1) as reader:
        found = marked(reader, sampling)
    runs = runs_of(found, list(range(len(found))))
    assert [len(run) for run in runs] == [8, 8, 8]
    for run in runs:
        assert [number - run[0] for number in run if found[number].small is not None] == [0, 5, 7]


def test_windows_keep_to_frames_where_these_are_irregular(tmp_path: Path) -> None:
    """Half of the frames lie four times as far apart: windows are still of consecutive frames and share none."""
    times = [n / 25 if n < 25 else 1 + (n - 25) * 4 / 25 for n in range(COUNT)]
    path = write_video(tmp_path / "video.mp4", counting(COUNT), times=times, options=h264(10))
    sampling = Sampling("windows", count=3, window_frames=10)
    with open_video(str(path), threads=1) as reader:
        found = marked(reader, sampling)
        numbers = [number_of(reader.shrink(one.frame, 64)) for one in found]
    assert numbers == sorted(set(numbers))
    for run in runs_of(found, numbers):
        assert run == list(range(run[0], run[0] + len(run)))
