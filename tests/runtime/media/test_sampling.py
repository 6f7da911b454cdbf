"""Which frames are scored, and which of them are searched for faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import accumulate, pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.media.color import BT709, Color
from deepscan.runtime.media.frame_tasks import FrameTask
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Geometry
from deepscan.runtime.media.sampling import Choice, Sampling, sampled_frames
from tests.footage import counting, number_of, open_video, write_video
from tests.runtime.scenes import tasks_of

DARK, LIGHT = 40, 200


def frame_of(index: int, level: int, size: int = 32) -> Frame:
    planes = (np.full((size, size), level, dtype=np.uint8),)
    picture = Picture(planes, 8, Color(BT709, full_range=True), left_chroma=True)
    return Frame(index, index / 25, picture, Geometry(size, size), None)


def shots(lengths: Iterable[int]) -> list[Frame]:
    """Return frames of shots of these lengths, dark and light in turn."""
    levels = [level for n, length in enumerate(lengths) for level in [LIGHT if n % 2 else DARK] * length]
    return [frame_of(index, level) for index, level in enumerate(levels)]


def marked(frames: list[Frame], *, every: int, choice: Choice = "all") -> list[FrameTask]:
    return list(tasks_of(zip(repeat(0), frames, strict=False), Sampling(choice, count=4, detect_every=every)))


def searched(found: list[FrameTask]) -> list[int]:
    return [one.frame.index for one in found if one.small is not None]


def shot_starts(found: list[FrameTask]) -> list[int]:
    return [one.frame.index for one in found if one.starts_shot]


@pytest.mark.parametrize(
    ("lengths", "every", "expected", "starts"),
    [
        ([], 4, [], []),
        ([1], 4, [0], [0]),
        ([2], 4, [0, 1], [0]),
        ([10], 1, list(range(10)), [0]),
        ([10], 4, [0, 4, 8, 9], [0]),
        ([9], 4, [0, 4, 8], [0]),
        ([10], 100, [0, 9], [0]),
        ([5, 5], 4, [0, 4, 5, 9], [0, 5]),
        ([6, 7], 4, [0, 4, 5, 6, 10, 12], [0, 6]),
        ([1, 1, 3], 4, [0, 1, 2, 4], [0, 1, 2]),
    ],
    ids=str,
)
def test_first_last_and_every_nth_frame_of_a_shot_are_searched(
    lengths: list[int], every: int, expected: list[int], starts: list[int]
) -> None:
    found = marked(shots(lengths), every=every)
    assert [one.frame.index for one in found] == [one.position for one in found] == list(range(sum(lengths)))
    assert searched(found) == expected
    assert shot_starts(found) == starts


def test_a_change_of_size_starts_a_shot() -> None:
    frames = [frame_of(index, DARK, size=32 if index < 6 else 48) for index in range(12)]
    found = marked(frames, every=4)
    assert searched(found) == [0, 4, 5, 6, 10, 11]
    assert shot_starts(found) == [0, 6]


def test_slow_changes_start_no_shot() -> None:
    found = marked([frame_of(index, DARK + 8 * index) for index in range(20)], every=5)
    assert shot_starts(found) == [0]


@pytest.mark.parametrize("choice", ["middles", "ends"])
def test_scattered_frames_are_all_searched_and_only_sizes_part_them(choice: Choice) -> None:
    frames = [*shots([2, 2]), frame_of(4, LIGHT, size=48)]
    found = marked(frames, every=4, choice=choice)
    assert searched(found) == [0, 1, 2, 3, 4]
    assert shot_starts(found) == [0, 4]


def test_marking_runs_one_frame_behind() -> None:
    """More frames held back would be more memory."""
    taken: list[int] = []

    def frames() -> Iterable[Frame]:
        for frame in shots([10]):
            taken.append(frame.index)
            yield frame

    for one in tasks_of(zip(repeat(0), frames(), strict=False), Sampling("all", detect_every=3)):
        assert taken[-1] <= one.frame.index + 1


@given(st.lists(st.integers(1, 12), max_size=6), st.integers(1, 15))
def test_every_frame_that_is_not_searched_lies_between_two_searched_ones_of_its_shot(
    lengths: list[int], every: int
) -> None:
    found = marked(shots(lengths), every=every)
    starts = [0, *accumulate(lengths)][:-1] if lengths else []
    assert [one.frame.index for one in found] == list(range(sum(lengths)))
    assert shot_starts(found) == starts
    looked_at = set(searched(found))
    for start, length in zip(starts, lengths, strict=True):
        of_shot = sorted(looked_at & set(range(start, start + length)))
        assert of_shot[0] == start
        assert of_shot[-1] == start + length - 1
        assert all(after - before <= every for before, after in pairwise(of_shot))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sampling") / "video.mp4"
    return write_video(path, counting(48), options={"g": "12", "bf": "2", "sc_threshold": "0"})


def numbers(path: Path, sampling: Sampling) -> list[int]:
    with open_video(str(path), threads=1) as reader:
        return [number_of(reader.shrink(frame, 64)) for _, frame in sampled_frames(reader, sampling)]


def test_all_takes_every_frame(video: Path) -> None:
    assert numbers(video, Sampling("all", count=3, detect_every=5)) == list(range(48))


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [24]), (2, [12, 36]), (4, [6, 18, 30, 42]), (8, [3, 9, 15, 21, 27, 33, 39, 45])]
)
def test_the_middles_of_equal_parts_are_taken_exactly(video: Path, count: int, expected: list[int]) -> None:
    assert numbers(video, Sampling("middles", count=count)) == expected


def test_every_frame_is_taken_once_where_there_are_fewer_than_asked_for(video: Path) -> None:
    assert numbers(video, Sampling("middles", count=500)) == list(range(48))


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, list(range(3))), (100, list(range(48)))])
def test_the_first_frames_follow_each_other(video: Path, count: int, expected: list[int]) -> None:
    assert numbers(video, Sampling("first", count=count)) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 47]), (6, [0, 9, 19, 28, 38, 47]), (48, list(range(48)))]
)
def test_from_end_to_end_means_both_ends_included(video: Path, count: int, expected: list[int]) -> None:
    assert numbers(video, Sampling("ends", count=count)) == expected


def test_first_and_last_frame_of_a_window_are_searched_and_the_next_one_does_not_follow_it() -> None:
    windows = [(0, DARK), (1, LIGHT), (2, DARK)]  # frames seconds apart differ without a cut
    frames = [(window, frame_of(10 * window + n, level)) for window, level in windows for n in range(7)]
    found = list(tasks_of(frames, Sampling("windows", count=3, window_frames=7, detect_every=4)))
    assert searched(found) == [0, 4, 6, 10, 14, 16, 20, 24, 26]
    assert shot_starts(found) == [0]
    steps = [after.position - before.position for before, after in pairwise(found)]
    assert [step == 1 for step in steps] == [number % 7 != 0 for number in range(1, 21)]
    assert min(steps) >= 1


def test_a_shot_boundary_within_a_window_starts_a_shot() -> None:
    frames = [(frame.index // 6, frame) for frame in shots([3, 5, 4])]
    found = list(tasks_of(frames, Sampling("windows", count=2, window_frames=6, detect_every=5)))
    assert shot_starts(found) == [0, 3, 8]
    assert searched(found) == [0, 2, 3, 5, 6, 7, 8, 11]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_nearby_takes_one_frame_of_about_each_part_and_prefers_key_frames(video: Path, count: int) -> None:
    part = 48 / count
    with open_video(str(video), threads=1) as reader:
        found = [frame for _, frame in sampled_frames(reader, Sampling("middles", count=count, nearby=True))]
    assert len(found) == count
    assert any(frame.key_frame for frame in found)
    for number, frame in enumerate(found):
        middle = part * (number + 0.5)
        assert middle - part - 1 <= frame.pts_seconds * 25 <= middle + 1


@pytest.mark.parametrize(
    ("rate", "every", "expected"),
    [(1, 5, [0, 1, 2, 3, 4, 5]), (4, 5, [0, 2, 4, 5]), (25, 100, [0, 12, 24, 36, 48, 49]), (25, 5, [0, 5, 10, 14])],
)
def test_no_longer_than_half_a_second_passes_between_searched_frames_unless_the_frames_are_rarer(
    rate: int, every: int, expected: list[int]
) -> None:
    frames = [dataclasses.replace(frame_of(index, DARK), pts_seconds=index / rate) for index in range(expected[-1] + 1)]
    assert searched(marked(frames, every=every)) == expected


def continuing(found: list[FrameTask]) -> list[int]:
    return [one.frame.index for one in found if one.continues]


@pytest.mark.parametrize(
    ("levels", "starts", "continues"),
    [
        ([DARK] * 6 + [LIGHT] + [DARK] * 5, [0, 6, 7], [6, 7]),  # a flash
        ([DARK] * 6 + [LIGHT, DARK] * 3, [0, 6, 7, 8, 9, 10, 11], [6, 7, 8, 9, 10, 11]),  # many of them
        ([10] * 5 + [60, 110, 160] + [210] * 5, [0, 5, 6, 7, 8], [6, 7, 8]),  # a fast fade
        ([10] * 5 + [110] + [210] * 5, [0, 5, 6], [6]),  # a blend of two shots belongs to the second
        ([10] * 5 + [110] * 2 + [210] * 5, [0, 5, 7], []),  # short, but a shot
    ],
    ids=["flash", "flashes", "fade", "blend", "shot"],
)
def test_a_frame_between_two_shot_boundaries_ends_no_shot_that_continues_after_it(
    levels: list[int], starts: list[int], continues: list[int]
) -> None:
    found = marked([frame_of(index, level) for index, level in enumerate(levels)], every=5)
    assert shot_starts(found) == starts
    assert continuing(found) == continues
    assert set(starts) | {start - 1 for start in starts[1:]} <= set(searched(found))


def test_sizes_that_change_frame_by_frame_are_shots_as_boxes_of_one_mean_nothing_in_another() -> None:
    found = marked([frame_of(index, DARK, size=32 + 16 * (index % 2)) for index in range(6)], every=5)
    assert shot_starts(found) == list(range(6))
    assert continuing(found) == []
