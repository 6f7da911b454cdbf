"""The tracking of FTCN and AltFreezing by hand, and against their rules written out word by word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.runtime.faces.detections import Faces, iou
from deepscan.runtime.faces.unbroken_tracks import UnbrokenTrack, unbroken_tracks

Box = tuple[float, float, float, float]
Face = tuple[Box, float]

LEFT: Box = (0, 0, 40, 40)
RIGHT: Box = (100, 0, 140, 40)
MIDDLE: Box = (50, 0, 90, 40)


def sure(*boxes: Box, score: float = 0.99) -> list[Face]:
    return [(box, score) for box in boxes]


def faces_of(faces: Sequence[Face]) -> Faces:
    boxes = np.array([box for box, _ in faces], dtype=np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in faces], dtype=np.float32)
    return Faces(boxes, np.zeros((len(faces), 5, 2), dtype=np.float32), scores)


def tracks_of(frames: Sequence[Sequence[Face]]) -> list[UnbrokenTrack]:
    return unbroken_tracks([faces_of(faces) for faces in frames])


def ranges(frames: Sequence[Sequence[Face]]) -> list[tuple[int, int]]:
    return [(track.start, track.start + len(track.faces)) for track in tracks_of(frames)]


def boxes_of(frames: Sequence[Sequence[Face]]) -> list[list[Box]]:
    return [
        [frames[track.start + place][face][0] for place, face in enumerate(track.faces)] for track in tracks_of(frames)
    ]


def test_a_face_that_stays_is_one_track() -> None:
    assert tracks_of([sure(LEFT)] * 5) == [UnbrokenTrack(0, (0, 0, 0, 0, 0))]


def test_no_frames_and_no_faces_make_no_track() -> None:
    assert tracks_of([]) == []
    assert tracks_of([[]]) == []
    assert tracks_of([[]] * 7) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_track_through_the_whole_of_a_short_video_counts(count: int) -> None:
    assert ranges([sure(LEFT)] * count) == [(0, count)]


def test_the_good_frame_after_a_gap_is_skipped() -> None:
    frames = [sure(LEFT)] * 20 + [[]] + [sure(LEFT)] * 19
    assert ranges(frames) == [(0, 20), (22, 40)]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(1, [(0, 10), (12, 30)]), (2, [(0, 10), (12, 30)]), (3, [(0, 10), (14, 30)]), (4, [(0, 10), (14, 30)])],
)
def test_behind_a_gap_the_search_goes_on_in_steps_of_two(gap: int, expected: list[tuple[int, int]]) -> None:
    frames = [sure(LEFT)] * 10 + [[]] * gap + [sure(LEFT)] * (20 - gap)
    assert ranges(frames) == expected


def test_a_video_that_begins_without_a_face() -> None:
    assert ranges([[]] + [sure(LEFT)] * 9) == [(2, 10)]
    assert ranges([[]] * 2 + [sure(LEFT)] * 8) == [(2, 10)]


def test_two_people_who_stay_are_two_tracks_the_better_first() -> None:
    frames = [sure(RIGHT, LEFT), sure(LEFT, RIGHT)] * 4
    assert tracks_of(frames) == [UnbrokenTrack(0, (0, 1) * 4), UnbrokenTrack(0, (1, 0) * 4)]
    assert boxes_of(frames) == [[RIGHT] * 8, [LEFT] * 8]


def test_a_chain_through_the_whole_video_makes_all_others_not_count() -> None:
    frames = [sure(RIGHT, LEFT)] * 5 + [sure(LEFT)] * 5
    assert boxes_of(frames) == [[LEFT] * 10]


def test_where_the_number_of_people_changes_the_video_is_parted_and_each_part_gives_its_first() -> None:
    """The right one is lost after frame 9, the left one after frame 24: none stays to the end."""
    frames = [sure(RIGHT, LEFT)] * 10 + [sure(LEFT)] * 15 + [[]]
    assert boxes_of(frames) == [[RIGHT] * 10, [LEFT] * 15]


def test_one_of_two_is_lost_late_and_the_last_part_keeps_who_stays_to_the_end() -> None:
    """Growing stops at the end of the video without looking there: the last frame may lose chains, but not all."""
    frames = [sure(MIDDLE)] * 2 + [[]] * 2 + [sure(LEFT, RIGHT)] * 9 + [sure(RIGHT)]
    assert boxes_of(frames) == [[MIDDLE] * 2, [RIGHT] * 10]


def test_all_are_lost_in_the_last_frame() -> None:
    frames = [sure(LEFT, RIGHT)] * 9 + [[]]
    assert boxes_of(frames) == [[LEFT] * 9]


def test_a_stretch_of_two_at_the_very_end_is_none() -> None:
    frames = [sure(LEFT)] * 10 + [[]] * 2 + [sure(LEFT)] * 2
    assert ranges(frames) == [(0, 10)]
    assert ranges([*frames, sure(LEFT)]) == [(0, 10), (12, 15)]


def test_a_face_begins_a_chain_from_a_score_of_four_fifths_and_goes_on_with_half() -> None:
    unsure = sure(LEFT, score=0.5)
    assert ranges([sure(LEFT, score=0.8)] + [unsure] * 5) == [(0, 6)]
    assert ranges([sure(LEFT, score=0.79)] + [sure(LEFT)] * 5) == [(2, 6)]
    assert ranges([sure(LEFT)] * 4 + [sure(LEFT, score=0.49)] + [sure(LEFT)] * 5) == [(0, 4), (6, 10)]


def test_a_chain_needs_an_overlap_of_a_half_from_frame_to_frame_but_may_go_far() -> None:
    def walk(step: float) -> list[list[Face]]:
        return [sure((step * n, 0, 40 + step * n, 40)) for n in range(9)]

    assert ranges(walk(13)) == [(0, 9)]  # 27 of 53 shared
    assert ranges(walk(14)) == []  # 26 of 54
    exactly_half = [sure((0, 0, 40, 40)), sure((0, 0, 40, 20)), sure((0, 0, 40, 40))]
    assert ranges(exactly_half) == [(0, 3)]


def test_a_face_covered_by_a_better_one_begins_no_chain() -> None:
    beside = (0.0, 0.0, 40.0, 30.0)  # 3/4 of the left one
    half = (0.0, 0.0, 40.0, 20.0)  # exactly a half: not more
    assert len(tracks_of([sure(LEFT, beside)] * 4)) == 1
    assert len(tracks_of([sure(LEFT, half)] * 4)) == 2
    # The better one covers it even where it begins no chain itself.
    third = (0.0, 0.0, 40.0, 22.0)  # 22/30 of the second, 22/40 of the first
    assert len(tracks_of([sure(LEFT, beside, third)] * 4)) == 1


def test_two_chains_may_meet_in_one_face() -> None:
    low, high = (0.0, 0.0, 40.0, 30.0), (0.0, 20.0, 40.0, 50.0)
    both = (0.0, 0.0, 40.0, 50.0)
    frames = [sure(low, high)] + [sure(both)] * 4
    assert tracks_of(frames) == [UnbrokenTrack(0, (0, 0, 0, 0, 0)), UnbrokenTrack(0, (1, 0, 0, 0, 0))]


def test_of_equal_overlaps_the_better_face_is_taken() -> None:
    assert tracks_of([sure(LEFT), sure(LEFT, LEFT), sure(LEFT)]) == [UnbrokenTrack(0, (0, 0, 0))]


def test_the_best_overlap_wins_whatever_its_score() -> None:
    near, exact = (3.0, 0.0, 43.0, 40.0), (0.0, 0.0, 40.0, 40.0)
    frames = [sure(LEFT), [*sure(near), *sure(exact, score=0.6)]]
    assert boxes_of(frames) == [[LEFT, exact]]


def test_only_the_ten_best_faces_of_a_frame_are_looked_at() -> None:
    crowd = [(100.0 * number, 100.0, 100.0 * number + 50, 150.0) for number in range(12)]
    assert len(tracks_of([sure(*crowd)] * 4)) == 10
    last = crowd[11]
    assert boxes_of([sure(last)] * 3 + [sure(*crowd)] * 2) == [[last] * 3]


def test_unsure_faces_do_not_count_among_those_that_continue() -> None:
    frames = [sure(LEFT, RIGHT)] * 3 + [[*sure(LEFT), *sure(RIGHT, score=0.49)]] * 3 + [sure(MIDDLE)]
    assert boxes_of(frames) == [[LEFT] * 3, [LEFT] * 3]


# The rules word by word, slowly: the oracle.


def overlap(first: Box, second: Box) -> float:
    across = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    down = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)]
    return across * down / (sum(areas) - across * down)


def simple_tracking(frames: Sequence[Sequence[Face]], index: int) -> list[int] | None:
    """Follow face `index` of the first frame over all frames, or give up."""
    if index >= len(frames[0]):
        return None
    box, score = frames[0][index]
    if score < 0.8 or any(overlap(box, better) > 0.5 for better, _ in frames[0][:index]):
        return None
    chosen = [index]
    for faces in frames[1:]:
        shared = [overlap(box, other) for other, _ in faces]
        if not shared or max(shared) < 0.5:
            return None
        chosen.append(shared.index(max(shared)))
        box = faces[chosen[-1]][0]
    return chosen


def multiple_tracking(frames: Sequence[Sequence[Face]]) -> list[list[int]]:
    tries = [simple_tracking(frames, index) for index in range(len(frames[0]))]
    return [track for track in tries if track is not None]


def find_longest(frames: Sequence[Sequence[Face]]) -> list[tuple[int, list[int]]]:
    found, start, count = [], 0, len(frames)
    while start < count:
        end, last = start + 2, None
        while end < count:
            tracks = multiple_tracking(frames[start:end])
            if not tracks or (last is not None and len(tracks) != last):
                break
            last = len(tracks)
            end += 1
        if end - start <= 2:
            start += 2
            continue
        stop = end - 1
        if end == count and multiple_tracking(frames[start:count]):
            stop = count
        found.append((start, multiple_tracking(frames[start:stop])[0]))
        start = stop
    return found


def by_the_book(frames: Sequence[Sequence[Face]]) -> list[UnbrokenTrack]:
    if not frames:
        return []
    seen = [[face for face in faces[:10] if face[1] >= 0.5] for faces in frames]
    whole = multiple_tracking(seen)
    tracks = [(0, track) for track in whole] or find_longest(seen)
    return [UnbrokenTrack(start, tuple(chosen)) for start, chosen in tracks]


# People stand in few places and move little, so that chains last; some frames miss them, some see them twice.
PLACE = st.tuples(st.sampled_from([0, 20, 60, 100]), st.integers(-6, 6), st.sampled_from([40, 44, 56]))
SCORE = st.sampled_from([1.0, 0.95, 0.9, 0.85, 0.8, 0.79, 0.6, 0.5, 0.49])
SEEN = st.lists(st.tuples(PLACE, SCORE), max_size=4)


def scene_frame(seen: Sequence[tuple[tuple[int, int, int], float]]) -> list[Face]:
    faces: list[Face] = [((x + dx, dx, x + dx + side, dx + side), score) for (x, dx, side), score in seen]
    return sorted(faces, key=lambda face: -face[1])


@st.composite
def scenes(draw: st.DrawFn) -> list[list[Face]]:
    """Stretches in which the same people stay, so that not every frame breaks every chain."""
    frames: list[list[Face]] = []
    for _ in range(draw(st.integers(1, 6))):
        people = scene_frame(draw(SEEN))
        frames += [people] * draw(st.integers(1, 6))
        if draw(st.booleans()):
            frames.append(scene_frame(draw(SEEN)))
    return frames


def crowd_of(count: int) -> list[Face]:
    return sure(*[(60.0 * number, 0.0, 60.0 * number + 50, 50.0) for number in range(count)])


@given(st.one_of(scenes(), st.lists(SEEN.map(scene_frame), max_size=12)))
@example([crowd_of(12)] * 3 + [crowd_of(11)[1:]] * 4)
@example([sure(LEFT, RIGHT)] * 3 + [sure(LEFT)])
@example([sure(LEFT, RIGHT)] * 3 + [[]])
def test_the_tracks_are_those_of_the_rules_word_by_word(frames: list[list[Face]]) -> None:
    assert tracks_of(frames) == by_the_book(frames)


@given(scenes())
def test_tracks_of_a_parted_video_follow_each_other_and_do_not_overlap(frames: list[list[Face]]) -> None:
    tracks = tracks_of(frames)
    if tracks and len(tracks[0].faces) == len(frames):
        assert all((track.start, len(track.faces)) == (0, len(frames)) for track in tracks)
        return
    ends = [0, *(track.start + len(track.faces) for track in tracks)]
    assert all(track.start >= end for track, end in zip(tracks, ends[:-1], strict=True))
    assert all(len(track.faces) >= 2 for track in tracks)
    assert ends[-1] <= len(frames)


@given(PLACE, PLACE)
def test_overlaps_are_those_of_plain_arithmetic(first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    one, other = (scene_frame([(place, 1.0)])[0][0] for place in (first, second))
    stacked: NDArray[np.float64] = np.array([other, one, RIGHT], dtype=np.float64)
    expected = [overlap(one, other), 1.0, overlap(one, RIGHT)]
    np.testing.assert_allclose(iou(np.array(one, dtype=np.float64), stacked), expected)


def test_long_videos_with_many_stretches_take_no_time() -> None:
    """768 frames, one face that stays almost to the end and one that comes and goes: many long chains are begun."""
    frames = [faces_of(sure(LEFT, RIGHT) if number % 3 else sure(LEFT)) for number in range(768)]
    frames[-1] = faces_of([])
    tracks = unbroken_tracks(frames)
    assert sum(len(track.faces) for track in tracks) > 700


def test_a_face_that_flickers_does_not_make_the_one_beside_it_be_followed_to_the_end_again_and_again() -> None:
    steps: list[None] = []
    frames = [faces_of(sure(LEFT, RIGHT) if number % 3 else sure(LEFT)) for number in range(600)]
    frames[-1] = faces_of([])
    assert unbroken_tracks(frames, moved=lambda: steps.append(None))
    assert len(frames) < len(steps) < 4 * len(frames)
