from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.pipeline.scoring import FIRST_WIDTH_SECONDS, MAX_SEGMENTS, Bin, Timeline

# Times from the first frames of a video to a week; some files begin a little before zero.
SECONDS = st.one_of(
    st.floats(-2, 700_000),
    st.floats(-2, 300),
    st.integers(0, 2000).map(float),
    st.integers(0, 5000).map(lambda n: n / 25),
)
ENTRIES = st.lists(st.tuples(SECONDS, st.floats(-100, 100)), max_size=600)


def timeline_of(entries: list[tuple[float, float]]) -> Timeline:
    timeline = Timeline()
    for seconds, value in entries:
        timeline.join(Bin(seconds, seconds, value, 1))
    return timeline


def width_for(times: list[float]) -> float:
    """The smallest width of 1, 2, 4, ... seconds with which the times fill no more bins than are allowed."""
    width = FIRST_WIDTH_SECONDS
    while len({math.floor(seconds / width) for seconds in times}) > MAX_SEGMENTS:
        width *= 2
    return width


@given(ENTRIES)
def test_values_end_up_in_the_bins_of_the_smallest_width_that_suffices(entries: list[tuple[float, float]]) -> None:
    width = width_for([seconds for seconds, _ in entries])
    expected: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for seconds, value in entries:
        expected[math.floor(seconds / width)].append((seconds, value))
    bins = timeline_of(entries).bins()
    assert len(bins) == len(expected) <= MAX_SEGMENTS
    for found, number in zip(bins, sorted(expected), strict=True):
        times = [seconds for seconds, _ in expected[number]]
        values = [value for _, value in expected[number]]
        assert (found.start_seconds, found.end_seconds, found.count) == (min(times), max(times), len(values))
        assert found.total == pytest.approx(math.fsum(values), abs=1e-9)
        assert found.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-9)


@given(ENTRIES)
def test_sum_and_number_of_the_values_are_kept_however_often_bins_are_joined(
    entries: list[tuple[float, float]],
) -> None:
    bins = timeline_of(entries).bins()
    assert sum(part.count for part in bins) == len(entries)
    assert math.fsum(part.total for part in bins) == pytest.approx(math.fsum(v for _, v in entries), abs=1e-8)
    assert all(before.end_seconds < after.start_seconds for before, after in pairwise(bins))


@given(ENTRIES, st.randoms(use_true_random=False))
def test_the_order_in_which_values_come_does_not_matter(entries: list[tuple[float, float]], random: Random) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)
    for found, again in zip(timeline_of(entries).bins(), timeline_of(shuffled).bins(), strict=True):
        assert (found.start_seconds, found.end_seconds, found.count) == (
            again.start_seconds,
            again.end_seconds,
            again.count,
        )
        assert found.total == pytest.approx(again.total, abs=1e-9)


@pytest.mark.parametrize(
    ("hours", "width"),
    [(1 / 60, 1), (128 / 3600, 1), (0.1, 4), (1, 32), (24, 1024)],
)
def test_a_long_video_has_wider_segments_not_more(hours: float, width: int) -> None:
    seconds = round(hours * 3600)
    timeline = timeline_of([(second + 0.5, 1.0) for second in range(seconds)])
    bins = timeline.bins()
    assert len(bins) == math.ceil(seconds / width)
    assert {part.count for part in bins[:-1]} == {width}
    assert sum(part.count for part in bins) == seconds


def test_a_lonely_late_value_does_not_blur_the_earlier_ones() -> None:
    entries = [(second + 0.5, float(second)) for second in range(100)] + [(1e6, 7.0)]
    bins = timeline_of(entries).bins()
    assert len(bins) == 101
    assert [part.mean for part in bins] == [*map(float, range(100)), 7.0]


def test_a_stretch_counts_where_it_starts_and_reaches_to_its_end() -> None:
    timeline = Timeline()
    for start in (0.5, 0.75, 1.5):
        timeline.join(Bin(start, start + 1.24, start, 1))
    first, second = timeline.bins()
    assert (first.start_seconds, first.end_seconds, first.total, first.count) == (0.5, 1.99, 1.25, 2)
    assert (second.start_seconds, second.end_seconds, second.total, second.count) == (1.5, 2.74, 1.5, 1)


def test_a_timeline_without_values_has_no_bins() -> None:
    assert Timeline().bins() == []
