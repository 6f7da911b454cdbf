from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.runtime.faces.tracking import MIN_OVERLAP, Glimpses, Tracker, widened_iou
from tests.runtime.scenes import boxes_of

Box = tuple[float, float, float, float]
LOOK_SECONDS = 0.2
EDGES = st.floats(0, 150, width=32)
SIDES = st.floats(5, 200, width=32)
SHOTS = st.lists(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=5), max_size=5)


@st.composite
def any_box(draw: st.DrawFn) -> Box:
    x, y = draw(EDGES), draw(EDGES)
    return x, y, x + draw(SIDES), y + draw(SIDES)


def square(x: float, y: float, side: float = 60) -> Box:
    """A face with its center at (x, y)."""
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def scalar_iou(a: Box, b: Box, widening: float) -> float:
    """What `widened_iou` computes for one pair, by the book."""

    def widened(box: Box) -> Box:
        dx, dy = widening * (box[2] - box[0]), widening * (box[3] - box[1])
        return box[0] - dx, box[1] - dy, box[2] + dx, box[3] + dy

    def area(box: Box) -> float:
        return (box[2] - box[0]) * (box[3] - box[1])

    a, b = widened(a), widened(b)
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / (area(a) + area(b) - shared)


@given(st.lists(any_box(), min_size=1, max_size=5), st.lists(any_box(), min_size=1, max_size=5), st.data())
def test_the_overlap_of_all_pairs_agrees_with_the_textbook_one_by_one(
    tracks: list[Box], faces: list[Box], data: st.DataObject
) -> None:
    shares = st.lists(st.floats(0, 0.5, width=32), min_size=len(tracks), max_size=len(tracks))
    widening = data.draw(shares)
    found = widened_iou(boxes_of(*tracks), boxes_of(*faces), np.array(widening, dtype=np.float32))
    expected = [[scalar_iou(track, face, grow) for face in faces] for track, grow in zip(tracks, widening, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_box_without_area_overlaps_nothing() -> None:
    points = boxes_of((5, 5, 5, 5))
    assert widened_iou(points, points, np.zeros(1, dtype=np.float32)).tolist() == [[0.0]]


def test_a_face_that_drifts_across_the_picture_keeps_its_number() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    numbers = {tracker.update(step * LOOK_SECONDS, boxes_of(square(50 + 15 * step, 100)))[0] for step in range(40)}
    assert numbers == {0}


def test_several_people_keep_their_numbers_whatever_order_they_are_listed_in() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    people = [square(100, 100), square(300, 100), square(500, 100)]
    assert tracker.update(0.0, boxes_of(*people)) == [0, 1, 2]
    for step, order in enumerate([[2, 0, 1], [1, 2, 0], [0, 1, 2]], start=1):
        moved = [square(100 + 200 * person + 5 * step, 100 - 3 * step) for person in order]
        assert tracker.update(step * LOOK_SECONDS, boxes_of(*moved)) == order


@pytest.mark.parametrize("speed", [10.0, 15.0, 20.0])
def test_two_people_who_cross_keep_their_own_numbers(speed: float) -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    for step in range(40):
        way = speed * (step - 20)
        passing = boxes_of(square(400 + way, 100), square(400 - way, 140))
        assert tracker.update(step * LOOK_SECONDS, passing) == [0, 1]


def test_one_who_is_hidden_while_crossing_is_not_merged_with_the_other() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    tracker.update(0.0, boxes_of(square(100, 100), square(170, 100)))
    assert tracker.update(0.2, boxes_of(square(110, 100))) == [0]
    assert tracker.update(0.4, boxes_of(square(120, 100), square(180, 100))) == [0, 1]


def test_two_faces_on_the_place_of_one_track_get_two_numbers() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    tracker.update(0.0, boxes_of(square(100, 100)))
    assert tracker.update(0.2, boxes_of(square(110, 100), square(102, 100))) == [1, 0]


def test_a_face_between_two_tracks_belongs_to_the_nearer_one_alone() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    tracker.update(0.0, boxes_of(square(100, 100), square(130, 100)))
    assert tracker.update(0.8, boxes_of(square(110, 100), square(400, 100))) == [0, 2]
    assert tracker.end_absent(1.5) == [1]


def test_a_face_elsewhere_is_a_new_track() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    tracker.update(0.0, boxes_of(square(100, 100)))
    assert tracker.update(0.2, boxes_of(square(400, 100))) == [1]


def test_an_overlap_of_three_tenths_is_enough_and_less_is_not() -> None:
    # Two boxes of side 100, moved by d, overlap by (100 - d) / (100 + d).
    limit = 100 * (1 - MIN_OVERLAP) / (1 + MIN_OVERLAP)
    for shift, number in [(limit - 1, 0), (limit + 1, 1)]:
        tracker = Tracker(max_gap_seconds=1.0)
        tracker.update(0.0, boxes_of(square(100, 100, 100)))
        assert tracker.update(0.0, boxes_of(square(100 + shift, 100, 100))) == [number]


def test_the_longer_a_face_was_away_the_further_it_may_have_moved() -> None:
    for seconds, number in [(0.1, 1), (0.9, 0)]:
        tracker = Tracker(max_gap_seconds=1.0)
        tracker.update(0.0, boxes_of(square(100, 100, 100)))
        assert tracker.end_absent(seconds) == []
        assert tracker.update(seconds, boxes_of(square(165, 100, 100))) == [number]


def test_a_short_gap_is_survived_and_a_long_one_ends_the_track() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    face = boxes_of(square(100, 100))
    tracker.update(0.0, face)
    assert tracker.end_absent(1.0) == []
    assert tracker.update(1.0, face) == [0]
    assert tracker.update(1.5, boxes_of()) == []
    assert tracker.end_absent(2.5) == [0]
    assert tracker.end_absent(2.5) == []
    assert tracker.update(2.5, face) == [1]


def test_looks_further_apart_than_the_gap_end_nothing_that_each_of_them_sees() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    for seconds in (0.0, 4.0, 8.0):
        assert tracker.end_absent(seconds) == []
        assert tracker.update(seconds, boxes_of(square(100, 100))) == [0]


def test_only_the_absent_end() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    tracker.update(0.0, boxes_of(square(100, 100), square(400, 100)))
    tracker.update(0.8, boxes_of(square(400, 100)))
    assert tracker.end_absent(1.5) == [0]
    assert tracker.update(1.5, boxes_of(square(400, 100), square(100, 100))) == [1, 2]


def test_with_an_endless_gap_no_face_is_ever_absent() -> None:
    tracker = Tracker(max_gap_seconds=float("inf"))
    tracker.update(0.0, boxes_of(square(100, 100)))
    assert tracker.end_absent(1e9) == []
    assert tracker.update(1e9, boxes_of(square(110, 100))) == [0]


def test_after_a_shot_boundary_a_face_in_the_same_place_is_a_new_track() -> None:
    tracker = Tracker(max_gap_seconds=1.0)
    face = boxes_of(square(100, 100), square(300, 100))
    tracker.update(0.0, face)
    assert tracker.end_all() == [0, 1]
    assert tracker.end_all() == []
    assert tracker.update(0.04, face) == [2, 3]


@given(st.lists(any_box(), min_size=1, max_size=6), st.data())
def test_listing_the_same_boxes_in_another_order_gives_the_same_tracks(before: list[Box], data: st.DataObject) -> None:
    after = data.draw(st.lists(any_box(), min_size=1, max_size=6))
    order = data.draw(st.permutations(range(len(after))))
    _assume_no_ties(boxes_of(*before), boxes_of(*after))
    listed, permuted = Tracker(max_gap_seconds=1.0), Tracker(max_gap_seconds=1.0)
    for tracker in (listed, permuted):
        tracker.update(0.0, boxes_of(*before))
    numbers = listed.update(LOOK_SECONDS, boxes_of(*after))
    again = permuted.update(LOOK_SECONDS, boxes_of(*(after[place] for place in order)))
    known = len(before)
    # The newcomers are numbered in the order of the list; the others are recognized.
    assert [min(number, known) for number in again] == [min(numbers[place], known) for place in order]
    assert sorted(again) == sorted(numbers)


def _assume_no_ties(before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
    widening = np.full(len(before), 0.06, dtype=np.float32)
    overlaps = np.sort(widened_iou(before, after, widening).ravel())
    candidates = overlaps[overlaps > MIN_OVERLAP / 2]
    assume(bool((np.diff(candidates) > 1e-4).all()))


@given(st.lists(st.tuples(st.sampled_from(["look", "cut", "pause"]), st.lists(any_box(), max_size=5)), max_size=12))
def test_a_number_is_given_to_one_face_at_a_time_and_never_again_after_its_end(
    steps: list[tuple[str, list[Box]]],
) -> None:
    tracker, seconds = Tracker(max_gap_seconds=1.0), 0.0
    alive: set[int] = set()
    ended: set[int] = set()
    for event, boxes in steps:
        seconds += 1.5 if event == "pause" else LOOK_SECONDS
        gone = tracker.end_all() if event == "cut" else tracker.end_absent(seconds)
        assert len(set(gone)) == len(gone)
        assert set(gone) <= alive
        alive -= set(gone)
        ended |= set(gone)
        numbers = tracker.update(seconds, boxes_of(*boxes))
        assert len(set(numbers)) == len(numbers) == len(boxes)
        assert ended.isdisjoint(numbers)
        alive |= set(numbers)
    assert sorted(tracker.end_all()) == sorted(alive)


def glimpses_of(shots: list[list[set[int]]]) -> set[int]:
    """Follow tracks that go on over all shots, whose looks see these."""
    glimpses = Glimpses()
    for looks in shots:
        glimpses.start_shot()
        for seen in looks:
            glimpses.add(seen)
    return set(glimpses.end({number for looks in shots for seen in looks for number in seen}))


@given(SHOTS)
def test_a_glimpse_is_seen_once_in_a_shot_of_several_looks(shots: list[list[set[int]]]) -> None:
    times = Counter(number for looks in shots for seen in looks for number in seen)
    once = {number for looks in shots if len(looks) > 1 for seen in looks for number in seen if times[number] == 1}
    assert glimpses_of(shots) == once


def test_what_has_ended_is_forgotten() -> None:
    glimpses = Glimpses()
    glimpses.add({0})
    glimpses.add({1})
    assert glimpses.end([0]) == (0,)
    assert glimpses.end([0, 2]) == ()
    assert glimpses.end([1]) == (1,)
