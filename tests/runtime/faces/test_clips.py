"""Which crops make a clip: mirrored indices, the authors' windows, and cutting a stream of crops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.faces.clips import ClipAssembler, mirrored_clip, paper_windows

T = 8
LENGTHS = st.integers(1, 40)
SHAPES = st.integers(1, 12).flatmap(lambda frames: st.tuples(st.just(frames), st.integers(1, frames)))
# Stretches of consecutive crops, each followed by at least one missing frame.
STRETCHES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 5)), max_size=5)


@pytest.mark.parametrize(
    ("length", "frames", "expected"),
    [
        (3, 8, [2, 1, 0, 1, 2, 1, 0, 1]),
        (5, 8, [1, 0, 1, 2, 3, 4, 3, 2]),
        (7, 8, [0, 1, 2, 3, 4, 5, 6, 5]),
        (1, 4, [0, 0, 0, 0]),
        (2, 5, [1, 0, 1, 0, 1]),
    ],
)
def test_mirrored_clips_by_hand(length: int, frames: int, expected: list[int]) -> None:
    assert mirrored_clip(length, frames) == expected


@given(st.integers(2, 40).flatmap(lambda frames: st.tuples(st.integers(1, frames), st.just(frames))))
def test_a_mirrored_clip_holds_the_whole_track_in_its_middle_and_moves_by_single_frames(shape: tuple[int, int]) -> None:
    length, frames = shape
    clip = mirrored_clip(length, frames)
    before = (frames - length) // 2
    assert len(clip) == frames
    assert clip[before : before + length] == list(range(length))
    assert all(abs(after - earlier) == min(1, length - 1) for earlier, after in pairwise(clip))


@given(LENGTHS, st.integers(1, 40), st.integers(1, 10))
def test_the_authors_windows_are_all_windows_of_the_track_padded_by_mirroring(
    length: int, frames: int, stride: int
) -> None:
    margin = 0 if length >= frames else frames - 1
    padded = np.pad(np.arange(length), margin, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, frames)[::stride]
    assert paper_windows(length, frames, stride) == windows.tolist()
    if stride == 1:
        assert len(windows) == (length - frames + 1 if length >= frames else length + frames - 1)


def cut(positions: list[int], frames: int, min_frames: int) -> tuple[list[list[int]], int]:
    """Cut crops that are their own positions; return the clips and the longest stretch that made none."""
    assembler = ClipAssembler[int](frames, min_frames)
    clips = [clip for position in positions for clip in assembler.add(position, position)]
    clips += assembler.finish()
    return clips, assembler.longest_dropped


def positions_of(stretches: list[tuple[int, int]]) -> list[list[int]]:
    runs, start = [], 3
    for length, missing in stretches:
        runs.append(list(range(start, start + length)))
        start += length + missing
    return runs


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (2, []),
        (3, [[2, 1, 0, 1, 2, 1, 0, 1]]),
        (8, [list(range(8))]),
        (9, [list(range(8)), list(range(1, 9))]),
        (16, [list(range(8)), list(range(8, 16))]),
        (20, [list(range(8)), list(range(8, 16)), list(range(12, 20))]),
    ],
)
def test_clips_of_one_stretch_by_hand(length: int, expected: list[list[int]]) -> None:
    assert cut(list(range(length)), T, 3) == (expected, 2 if length == 2 else 0)


@given(SHAPES, STRETCHES)
def test_each_stretch_is_cut_by_itself_and_every_crop_of_a_long_enough_one_lies_in_a_clip(
    shape: tuple[int, int], stretches: list[tuple[int, int]]
) -> None:
    frames, min_frames = shape
    runs = positions_of(stretches)
    clips, longest_dropped = cut([position for run in runs for position in run], frames, min_frames)
    dropped = [len(run) for run in runs if len(run) < min_frames]
    assert longest_dropped == max(dropped, default=0)
    for run in runs:
        mine = [clip for clip in clips if clip[0] in run]
        assert all(set(clip) <= set(run) for clip in mine)
        assert all(len(clip) == frames for clip in mine)
        if len(run) < min_frames:
            assert not mine
            continue
        assert len(mine) == math.ceil(len(run) / frames)
        assert set().union(*map(set, mine)) == set(run)
        if len(run) >= frames:
            assert all(clip == list(range(clip[0], clip[0] + frames)) for clip in mine)
            assert [clip[0] for clip in mine[:-1]] == list(range(run[0], run[-1], frames))[: len(mine) - 1]
        else:
            assert mine == [[run[index] for index in mirrored_clip(len(run), frames)]]
    assert len(clips) == sum(math.ceil(len(run) / frames) for run in runs if len(run) >= min_frames)


@given(SHAPES, STRETCHES)
def test_a_clip_comes_with_the_crop_that_completes_it(shape: tuple[int, int], stretches: list[tuple[int, int]]) -> None:
    frames, min_frames = shape
    assembler = ClipAssembler[int](frames, min_frames)
    for run in positions_of(stretches):
        for count, position in enumerate(run, start=1):
            complete = [clip for clip in assembler.add(position, position) if position in clip]
            assert len(complete) == (count % frames == 0)


def test_a_finished_stretch_is_over_even_if_the_next_crop_follows_it() -> None:
    assembler = ClipAssembler[int](T, 3)
    clips = [clip for position in range(5) for clip in assembler.add(position, position)]
    clips += assembler.finish()
    assert list(assembler.finish()) == []
    clips += [clip for position in range(5, 10) for clip in assembler.add(position, position)]
    clips += assembler.finish()
    assert [set(clip) for clip in clips] == [set(range(5)), set(range(5, 10))]


def test_a_position_that_comes_again_or_goes_back_begins_a_new_stretch() -> None:
    clips, _ = cut([4, 5, 6, 6, 7, 8, 2, 3, 4], T, 3)
    assert [set(clip) for clip in clips] == [{4, 5, 6}, {6, 7, 8}, {2, 3, 4}]


def test_the_longest_of_the_dropped_stretches_is_remembered() -> None:
    assert cut([0, 2, 3, 5, 6, 7, 9, 10, 12], T, 4) == ([], 3)
