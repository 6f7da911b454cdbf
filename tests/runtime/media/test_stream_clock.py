"""Time goes on where a file's clock starts again, jumps, wraps around or stands still; and is left alone elsewhere."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.media.stream_clock import StreamClock

MILLISECOND = Fraction(1, 1000)
BROADCAST = Fraction(1, 90000)
FRAME = 40
Times = list[tuple[int | None, int | None]]


def clock(*, restarts: bool = False, jumps: bool = False, stands: bool = False) -> StreamClock:
    return StreamClock(
        BROADCAST if jumps else MILLISECOND,
        frame_seconds=0.04,
        restarts=restarts or jumps,
        jumps=jumps,
        by_decoding=restarts or jumps or stands,
        stands=stands,
    )


def corrected(which: StreamClock, times: Times, duration: int = 0) -> Times:
    return [which.corrected(pts, dts, duration) for pts, dts in times]


@given(st.lists(st.integers(1, 60_000), max_size=30), st.booleans())
def test_slow_and_uneven_times_of_files_stay_as_they_are(steps: list[int], known: bool) -> None:
    times = [sum(steps[:number]) for number in range(len(steps) + 1)]
    given_times: Times = [(time, time if known else None) for time in times]
    assert corrected(clock(), given_times) == given_times


def test_a_slide_of_half_an_hour_in_a_file_is_one() -> None:
    times: Times = [(0, None), (1_800_000, None), (1_800_040, None)]
    one = clock()
    assert corrected(one, times) == times
    assert one.jumps == 0


def test_pictures_in_another_order_than_shown_stay_as_they_are() -> None:
    times: Times = [(0, None), (600_000, None), (200_000, 0), (60_000, 60_000), (300_000, 200_000)]
    assert corrected(clock(), times) == times


@pytest.mark.parametrize("jump", [3_700_000, 13 * 3_600_000])
def test_a_jump_that_no_picture_lasts_continues_one_frame_later(jump: int) -> None:
    times: Times = [(n * FRAME + (jump if n >= 5 else 0), None) for n in range(10)]
    one = clock()
    assert corrected(one, times, FRAME) == [(n * FRAME, None) for n in range(10)]
    assert one.jumps == 1


@given(st.integers(1, 4), st.integers(2, 60))
def test_joined_streams_follow_each_other(parts: int, length: int) -> None:
    frame = 3600
    part = [(133_200 + n * frame + 2 * frame, 133_200 + n * frame) for n in range(length)]
    times: Times = [*part] * parts
    found = corrected(clock(jumps=True), times, frame)
    if length * 0.04 > 0.2:
        assert found == [
            (pts, pts - 2 * frame) for pts in range(part[0][0], part[0][0] + parts * length * frame, frame)
        ]


def test_a_broadcast_wraps_around() -> None:
    top, frame = 1 << 33, 3600
    times: Times = [
        ((top - 5 * frame + n * frame + 2 * frame) % top, (top - 5 * frame + n * frame) % top) for n in range(12)
    ]
    found = corrected(clock(jumps=True), times, frame)
    assert [pts - dts for pts, dts in found if pts is not None and dts is not None] == [2 * frame] * 12
    assert [dts for _, dts in found] == [top - 5 * frame + n * frame for n in range(12)]


def test_where_time_stands_still_frames_are_counted() -> None:
    times: Times = [(n * FRAME if n < 5 else 160 + (n - 4), n * FRAME if n < 5 else 160 + (n - 4)) for n in range(10)]
    one = StreamClock(Fraction(1, 90000), frame_seconds=0.04, restarts=True, jumps=False, by_decoding=True, stands=True)
    scaled: Times = [
        (None if pts is None else 3600 * n if n < 5 else 4 * 3600 + n - 4, 3600 * n if n < 5 else 4 * 3600 + n - 4)
        for n, (pts, _) in enumerate(times)
    ]
    found = [one.corrected(pts, dts, 3600 if n < 4 else 1) for n, (pts, dts) in enumerate(scaled)]
    assert [dts for _, dts in found] == [3600 * n for n in range(10)]


def test_after_a_seek_the_times_of_the_file_hold_again() -> None:
    one = clock(jumps=True)
    corrected(one, [(0, 0), (10**9, 10**9)], 3600)
    one.restart()
    assert one.corrected(2 * 10**9, 2 * 10**9, 3600) == (2 * 10**9, 2 * 10**9)


def test_packets_without_times_have_none() -> None:
    assert corrected(clock(jumps=True), [(None, None), (3600, None), (None, 3600)]) == [
        (None, None),
        (3600, None),
        (None, 3600),
    ]


def test_a_picture_is_shown_for_as_long_as_it_says_if_that_can_be() -> None:
    one = clock()
    assert one.duration_seconds(5000) == 5.0
    assert one.duration_seconds(None) == one.duration_seconds(13 * 3_600_000) == 0.04


def test_joined_parts_and_jumps_are_told_apart() -> None:
    one, part = clock(jumps=True), [(3600 * n, 3600 * n) for n in range(10)]
    found = corrected(one, [*part, *part, (10**9, 10**9), *part], 3600)
    assert [one.part_of(pts) for pts, _ in found if pts is not None] == [0] * 10 + [1] * 10 + [2] + [3] * 10


def test_a_key_frame_that_goes_back_starts_again_but_no_picture_in_another_order_does() -> None:
    which = StreamClock(
        MILLISECOND, frame_seconds=0.04, restarts=False, restarts_at_keys=True, jumps=False, by_decoding=False
    )
    # As muxers write it that call every picture a key frame: 0, 160, 80, 40, 120 and so on.
    order = [0, 160, 80, 40, 120, 320, 240, 200, 280, 480, 400, 360, 440]
    times = [*order, *order]
    found = [which.corrected(time, None, FRAME, key=True)[0] for time in times]
    assert found == [*order, *(time + 480 + FRAME for time in order)]
    assert which.jumps == 1


@pytest.mark.parametrize("jump", [46_800, -20, -3])
def test_where_only_presentation_times_have_jumped_yet_they_follow_decoding_times(jump: int) -> None:
    """FFmpeg reads MPEG-PS like that: each decoding time is that of the picture before."""
    frame, start = 3600, 90_000 * 60
    shown = [start + number * frame + (jump * 90_000 if number >= 5 else 0) for number in range(10)]
    decoded = [start - frame, *shown[:-1]]
    found = corrected(clock(jumps=True), list(zip(shown, decoded, strict=True)), frame)
    assert [pts for pts, _ in found] == [start + number * frame for number in range(10)]


@pytest.mark.parametrize("jump", [46_800, 15, -20])
def test_a_jump_begins_another_part(jump: int) -> None:
    frame = 3600
    times = [90_000 * 60 + number * frame + (jump * 90_000 if number >= 5 else 0) for number in range(10)]
    which = clock(jumps=True)
    found = corrected(which, [(time, time) for time in times], frame)
    assert [which.part_of(pts) for pts, _ in found if pts is not None] == [0] * 5 + [1] * 5
