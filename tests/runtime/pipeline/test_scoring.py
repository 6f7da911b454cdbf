from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from random import Random
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deepscan.options import Aggregate
from deepscan.results import Segment
from deepscan.runtime.pipeline.scoring import (
    MIN_SIGHTINGS,
    TRACKS_DETAILED,
    ScoreAggregator,
    VideoScore,
    label_of,
    peak_segment,
)
from deepscan.spec import LabelBand
from tests.runtime.scenes import spec_with

Pooling = Literal["logit", "score"]
SCALE, OFFSET = 0.9, -0.4
POOLINGS: tuple[Pooling, ...] = ("logit", "score")
BAND = LabelBand(real_below=0.3, fake_from=0.7)
TRACKS = st.lists(st.lists(st.floats(-20, 20), min_size=1, max_size=8), min_size=1, max_size=8)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def pooled(logits: Sequence[float], pooling: Pooling) -> float:
    """The score of some crops, by the definition."""
    if pooling == "logit":
        return sigmoid(SCALE * math.fsum(logits) / len(logits) + OFFSET)
    return math.fsum(sigmoid(SCALE * logit + OFFSET) for logit in logits) / len(logits)


def board_of(*, pooling: Pooling = "logit", aggregate: Aggregate = "max", decisive: int = 3) -> ScoreAggregator:
    return ScoreAggregator(spec_with(pooling=pooling, scale=SCALE, offset=OFFSET), aggregate, decisive_frames=decisive)


def add(board: ScoreAggregator, track: int, seconds: float, logit: float) -> None:
    """Add a single crop."""
    board.add(track, seconds, seconds, logit, frames=1, sightings=[round(100 * seconds)])


def verdict_on(
    tracks: Sequence[Sequence[float]],
    *,
    pooling: Pooling = "logit",
    aggregate: Aggregate = "max",
    decisive: int = 3,
    random: Random | None = None,
) -> VideoScore:
    """Score tracks of one crop per second; `random` mixes their crops and ends them in any order."""
    board = board_of(pooling=pooling, aggregate=aggregate, decisive=decisive)
    crops = [
        (track, float(second), logit) for track, logits in enumerate(tracks) for second, logit in enumerate(logits)
    ]
    ends = list(range(len(tracks)))
    if random is not None:
        random.shuffle(crops)
        random.shuffle(ends)
    for crop in crops:
        add(board, *crop)
    for number in ends[: len(ends) // 2]:
        board.end([number])
    score = board.finish()
    assert score is not None
    return score


@pytest.mark.parametrize("pooling", POOLINGS)
@given(tracks=TRACKS, decisive=st.integers(1, 5), random=st.randoms(use_true_random=False))
def test_the_video_is_as_fake_as_its_most_suspicious_track_where_short_ones_count_as_one(
    pooling: Pooling, tracks: list[list[float]], decisive: int, random: Random
) -> None:
    scores = [pooled(logits, pooling) for logits in tracks]
    found = verdict_on(tracks, pooling=pooling, decisive=decisive, random=random)
    deciding = [logits for logits in tracks if len(logits) >= decisive]
    short = [logit for logits in tracks if len(logits) < decisive for logit in logits]
    if len(short) >= decisive or not deciding:
        deciding.append(short)
    assert found.score == pytest.approx(max(pooled(logits, pooling) for logits in deciding), rel=1e-9)
    assert (found.tracks, found.clips) == (len(tracks), sum(map(len, tracks)))
    for detail in found.details:
        assert detail.score == pytest.approx(scores[detail.track], rel=1e-9)
        assert detail.clips == len(tracks[detail.track]) == sum(part.clips for part in detail.timeline)
        assert (detail.start_seconds, detail.end_seconds) == (0.0, detail.clips - 1)
    keys = [(detail.clips >= decisive, detail.score) for detail in found.details]
    assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(tracks=TRACKS, random=st.randoms(use_true_random=False))
def test_the_authors_rule_takes_the_mean_over_all_crops(
    pooling: Pooling, tracks: list[list[float]], random: Random
) -> None:
    found = verdict_on(tracks, pooling=pooling, aggregate="mean", random=random)
    together = [logit for logits in tracks for logit in logits]
    assert found.score == pytest.approx(pooled(together, pooling), rel=1e-9)


def test_the_poolings_differ_where_logits_do() -> None:
    scores = [verdict_on([[-8.0, 2.0, 3.0]], pooling=pooling).score for pooling in POOLINGS]
    assert scores == pytest.approx([0.2142, 0.5705], abs=1e-4)


@given(logits=st.lists(st.floats(-20, 20), min_size=3, max_size=8), flicker=st.lists(st.floats(-50, 50), max_size=2))
def test_a_flicker_never_outvotes_a_track(logits: list[float], flicker: list[float]) -> None:
    noisy = verdict_on([logits, *([logit] for logit in flicker)])
    alone = verdict_on([logits])
    assert (noisy.score, noisy.peak) == (alone.score, alone.peak)


def test_noise_of_many_short_tracks_does_not_add_up() -> None:
    noise = [[logit] for logit in (-9.0, 9.0) * 50]
    assert verdict_on([[0.5] * 3, *noise]).score == pytest.approx(pooled([0.5], "logit"))


def test_a_forgery_cut_into_short_shots_is_not_hidden_by_one_longer_genuine_shot() -> None:
    found = verdict_on([*([[4.0] * 2] * 9), [-4.0] * 3])
    assert found.score == pytest.approx(pooled([4.0], "logit"))
    assert found.peak.score == pytest.approx(pooled([4.0], "logit"))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("aggregate", ["max", "mean"])
@given(tracks=st.lists(st.lists(FLOAT32, min_size=1, max_size=6), min_size=1, max_size=4))
@example([[3.4028234663852886e38] * 6])
@example([[-3.4028234663852886e38] * 6])
@example([[1000.0, -1000.0, 745.2]])
def test_scores_are_finite_probabilities_whatever_the_logits(
    pooling: Pooling, aggregate: Aggregate, tracks: list[list[float]]
) -> None:
    found = verdict_on(tracks, pooling=pooling, aggregate=aggregate)
    segments = [part for detail in found.details for part in detail.timeline]
    for score in [found.score, found.peak.score, *(detail.score for detail in found.details)]:
        assert 0.0 <= score <= 1.0
    assert all(0.0 <= part.score <= 1.0 for part in segments)


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_without_a_single_crop_there_is_no_score(aggregate: Aggregate) -> None:
    board = board_of(aggregate=aggregate)
    board.end([0, 1])
    assert board.finish() is None


def test_a_track_that_never_had_a_crop_ends_without_a_trace() -> None:
    board = board_of()
    add(board, 1, 0.0, 2.0)
    board.end([0, 1, 2])
    score = board.finish()
    assert score is not None
    assert [detail.track for detail in score.details] == [1]
    assert score.tracks == 1


def test_a_clip_reaches_from_its_first_frame_to_its_last() -> None:
    board = board_of(decisive=1)
    for start in (0.2, 1.48, 2.76):
        board.add(0, start, start + 1.24, start, frames=32, sightings=[round(100 * start)])
    score = board.finish()
    assert score is not None
    assert (score.details[0].start_seconds, score.details[0].end_seconds) == (0.2, 4.0)
    assert (score.peak.start_seconds, score.peak.end_seconds, score.clips) == (2.76, 4.0, 3)


def test_a_clip_with_too_few_frames_of_its_own_does_not_decide_beside_a_longer_one() -> None:
    board = board_of(decisive=32)
    board.add(0, 0.0, 1.2, -1.0, frames=32, sightings=range(32))
    board.add(1, 2.0, 2.3, 5.0, frames=9, sightings=range(9))  # mirrored
    board.end([0, 1])
    score = board.finish()
    assert score is not None
    assert score.score == pytest.approx(sigmoid(SCALE * -1.0 + OFFSET))
    assert [detail.track for detail in score.details] == [0, 1]
    alone = board_of(decisive=32)
    alone.add(1, 2.0, 2.3, 5.0, frames=9, sightings=range(9))
    only = alone.finish()
    assert only is not None
    assert only.score == pytest.approx(sigmoid(SCALE * 5.0 + OFFSET))


def test_a_track_that_ends_early_and_one_that_is_left_open_count_alike() -> None:
    ended, left = board_of(), board_of()
    for board in (ended, left):
        for second in range(5):
            add(board, 0, float(second), 1.0 + second)
    ended.end([0])
    assert ended.finish() == left.finish()


def test_memory_does_not_grow_with_the_number_of_tracks() -> None:
    board, random = board_of(), Random(1)
    logits = [random.uniform(-5, 5) for _ in range(5_000)]
    held = {}
    tracemalloc.start()
    try:
        for number, logit in enumerate(logits):
            for frame in range(3 if number % 2 else 1):
                add(board, number, frame / 25, logit)
            board.end([number])
            if number in (2_500, 4_999):  # by then Python's own free lists are full
                held[number] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held[4_999] < 1.1 * held[2_500]
    found = board.finish()
    assert found is not None
    assert (found.tracks, found.clips) == (5_000, 10_000)
    best = sorted((number for number in range(5_000) if number % 2), key=lambda number: -logits[number])
    assert [detail.track for detail in found.details] == best[:TRACKS_DETAILED]
    assert found.score == pytest.approx(pooled([logits[best[0]]], "logit"))


def test_of_equal_tracks_the_earlier_comes_first() -> None:
    found = verdict_on([[1.0] * 3, [2.0], [1.0] * 3, [2.0] * 2], random=Random(2))
    assert [detail.track for detail in found.details] == [0, 2, 1, 3]


def segment(second: int, score: float, clips: int) -> Segment:
    return Segment(start_seconds=second, end_seconds=second + 0.96, score=score, clips=clips)


@pytest.mark.parametrize(
    ("segments", "peak"),
    [
        ([(0.2, 25)], 0),
        ([(0.2, 25), (0.7, 25), (0.4, 25)], 1),
        ([(0.2, 25), (0.7, 25), (0.9, 12)], 1),  # less than half of what is usual
        ([(0.2, 25), (0.7, 25), (0.9, 13)], 2),
        ([(0.1, 1), (0.3, 1), (0.2, 1)], 1),
        ([(0.7, 25), (0.7, 25)], 0),
    ],
)
def test_the_peak_is_the_highest_segment_with_enough_crops(segments: list[tuple[float, int]], peak: int) -> None:
    timeline = tuple(segment(second, score, clips) for second, (score, clips) in enumerate(segments))
    assert peak_segment(timeline) is timeline[peak]


def test_the_peak_of_a_video_is_where_the_face_looks_most_forged() -> None:
    board = board_of()
    for frame in range(100):
        add(board, 0, frame / 25, 4.0 if 50 <= frame < 75 else -4.0)
        add(board, 1, frame / 25, 0.0)
    found = board.finish()
    assert found is not None
    assert found.peak == Segment(start_seconds=2.0, end_seconds=2.96, score=pooled([4.0], "logit"), clips=25)


@pytest.mark.parametrize(
    ("score", "threshold", "label"),
    [
        (0.0, None, "real"),
        (0.29999, None, "real"),
        (0.3, None, "uncertain"),
        (0.69999, None, "uncertain"),
        (0.7, None, "fake"),
        (1.0, None, "fake"),
        (0.85, 0.9, "uncertain"),
        (0.9, 0.9, "fake"),
        (0.29, 0.9, "real"),
        (0.2, 0.2, "fake"),
        (0.19999, 0.2, "real"),
        (0.0, 0.0, "fake"),
        (0.99999, 1.0, "uncertain"),
    ],
)
def test_labels_follow_the_band_and_fake_begins_where_the_caller_says(
    score: float, threshold: float | None, label: str
) -> None:
    assert label_of(score, BAND.with_threshold(threshold)) == label


@given(st.one_of(st.none(), st.floats(0, 1)), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_never_has_a_milder_label(threshold: float | None, one: float, other: float) -> None:
    band = BAND.with_threshold(threshold)
    severity = ["real", "uncertain", "fake"]
    labels = [severity.index(label_of(score, band)) for score in sorted((one, other))]
    assert labels == sorted(labels)
    assert 0.0 <= band.real_below <= band.fake_from <= 1.0


def details_of(found: VideoScore) -> dict[int, tuple[int | None, bool | None, bool | None]]:
    return {detail.track: (detail.sightings, detail.pooled, detail.decided) for detail in found.details}


def test_sightings_are_counted_once_however_many_clips_show_them() -> None:
    board = board_of(decisive=1)
    for first in range(4):  # the windows of the authors' way
        board.add(0, first / 25, (first + 7) / 25, 0.0, frames=8, sightings=range(first, first + 8))
    board.add(1, 0.0, 1.0, -1.0, frames=8, sightings=[0])
    found = board.finish()
    assert found is not None
    assert details_of(found) == {0: (11, False, True), 1: (1, False, False)}
    assert found.sightings == MIN_SIGHTINGS


@pytest.mark.parametrize(
    ("tracks", "aggregate", "sightings"),
    [
        ([[0]], "max", 1),
        ([[0, 4]], "max", 2),
        ([[0, 4, 9]], "max", 3),
        ([[0, 4, 9, 12]], "max", 3),  # it is enough
        ([[7], [8], [9]], "max", 3),  # the pool
        ([[7], [7], [7]], "max", 1),  # three faces in one frame
        ([[7], [7, 9]], "mean", 2),
    ],
)
def test_a_verdict_knows_in_how_many_frames_a_face_was_found_of_what_decided(
    tracks: list[list[int]], aggregate: Aggregate, sightings: int
) -> None:
    board = board_of(aggregate=aggregate, decisive=6)
    for number, positions in enumerate(tracks):
        for position in range(5):  # of frames between two sightings there are crops too
            board.add(number, position, position, 1.0, frames=1, sightings=[p for p in positions if p // 4 == position])
    found = board.finish()
    assert found is not None
    assert found.sightings == sightings


@given(tracks=TRACKS, decisive=st.integers(1, 5), aggregate=st.sampled_from(["max", "mean"]))
def test_what_decided_is_marked_and_makes_the_score(
    tracks: list[list[float]], decisive: int, aggregate: Aggregate
) -> None:
    found = verdict_on(tracks, aggregate=aggregate, decisive=decisive)
    deciding = [detail for detail in found.details if detail.decided]
    logits = [logit for detail in deciding for logit in tracks[detail.track]]
    assert found.score == pytest.approx(pooled(logits, "logit"), rel=1e-9)
    assert [detail.pooled for detail in found.details] == [len(tracks[d.track]) < decisive for d in found.details]
    if aggregate == "mean":
        assert len(deciding) == len(tracks)
    else:
        assert len({detail.pooled for detail in deciding}) == 1
        assert len(deciding) == 1 or all(detail.pooled for detail in deciding)


@given(tracks=TRACKS, glimpses=st.lists(st.floats(-50, 50), min_size=1, max_size=6), decisive=st.integers(1, 5))
@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_glimpses_change_nothing_where_there_is_a_track_and_are_all_there_is_where_there_is_none(
    tracks: list[list[float]], glimpses: list[float], decisive: int, aggregate: Aggregate
) -> None:
    def board(parts: Sequence[Sequence[float]], glimpsed: Sequence[int]) -> VideoScore | None:
        made = board_of(aggregate=aggregate, decisive=decisive)
        for number, logits in enumerate(parts):
            for second, logit in enumerate(logits):
                add(made, number, float(second), logit)
            made.end([number], glimpses=glimpsed)
        return made.finish()

    lone = [[logit] for logit in glimpses]
    both = board([*tracks, *lone], range(len(tracks), len(tracks) + len(lone)))
    assert both == board(tracks, [])
    assert board(lone, range(len(lone))) == board(lone, [])


def test_one_who_is_seen_better_decides_where_scores_are_equal() -> None:
    board = board_of(decisive=2)
    for second in range(3):
        board.add(0, second, second, 1.0, frames=1, sightings=[])
        board.add(1, second, second, 1.0, frames=1, sightings=[second])
    board.end([0], glimpses=[])
    found = board.finish()
    assert found is not None
    assert (found.sightings, details_of(found)[1]) == (3, (3, False, True))
