from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.export.parity.sample_collector import Priority, StratifiedSampler, turns

# For each video the turns of its items, in the order in which they come.
VIDEOS = st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=6)


def interleaved(videos: list[list[int]], chance: Random) -> list[tuple[int, int]]:
    """Mix the items of the videos, each a video's number and the item's in it; each video's keep their order."""
    numbers = [video for video, items in enumerate(videos) for _ in items]
    chance.shuffle(numbers)
    seen = [0] * len(videos)
    mixed = []
    for video in numbers:
        mixed.append((video, seen[video]))
        seen[video] += 1
    return mixed


def fair_sizes(videos: list[list[int]], count: int) -> list[int]:
    """Give one item after the other to whoever has fewest and has more to give, the first of those."""
    sizes = [0] * len(videos)
    for _ in range(count):
        able = [video for video, items in enumerate(videos) if sizes[video] < len(items)]
        if able:
            sizes[min(able, key=lambda video: sizes[video])] += 1
    return sizes


@given(VIDEOS, st.integers(1, 20), st.randoms(use_true_random=False))
def test_every_video_gives_a_fair_share_of_its_first_items(videos: list[list[int]], count: int, chance: Random) -> None:
    shares: StratifiedSampler[str] = StratifiedSampler(count)
    for video, number in interleaved(videos, chance):
        shares.offer(video, Priority(0, videos[video][number], number), f"{video}.{number}")
        assert shares.total <= count
    sizes = fair_sizes(videos, count)
    for video, items in enumerate(videos):
        kept = sorted(range(len(items)), key=lambda number: (items[number], number))[: sizes[video]]
        assert shares.items(video) == [f"{video}.{number}" for number in sorted(kept)]
        assert shares.size(video) == sizes[video]
    assert (shares.total, shares.largest(), shares.videos()) == (sum(sizes), max(sizes), sum(map(bool, sizes)))


def test_repeats_give_way_before_later_turns() -> None:
    shares: StratifiedSampler[str] = StratifiedSampler(2)
    shares.offer(0, Priority(0, 0, 0), "first")
    shares.offer(0, Priority(1, 0, 1), "repeated")
    shares.offer(0, Priority(0, 7, 2), "late turn")
    assert shares.items(0) == ["first", "late turn"]


def test_a_video_can_be_asked_again() -> None:
    shares: StratifiedSampler[str] = StratifiedSampler(3)
    for number in range(2):
        shares.offer(0, Priority(0, number, number), "old")
        shares.offer(1, Priority(0, number, number), "other")
    shares.clear(0)
    assert (shares.total, shares.size(0), shares.videos()) == (1, 0, 1)
    shares.offer(0, Priority(0, 0, 0), "new")
    assert (shares.items(0), shares.items(1)) == (["new"], ["other"])


def test_nothing_is_held_at_first() -> None:
    shares: StratifiedSampler[str] = StratifiedSampler(1)
    assert (shares.total, shares.largest(), shares.videos(), shares.items(0)) == (0, 0, 0, [])


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_turns_are_spread_however_many_have_had_theirs(places: int, shift: float) -> None:
    found = turns(places, shift)
    assert sorted(found) == list(range(places))
    had = 1
    while had <= places:
        taken = sorted(place for place, turn in enumerate(found) if turn < had)
        gaps = [after - before for before, after in zip(taken, [*taken[1:], taken[0] + places], strict=True)]
        assert max(gaps) <= -(-places // had) + 1
        had *= 2


def test_the_first_turn_is_where_it_was_asked_to_be() -> None:
    assert [turns(8, shift).index(0) for shift in (0.0, 0.3, 0.99)] == [0, 2, 7]


@pytest.mark.parametrize(
    ("places", "expected"), [(1, [0]), (2, [0, 1]), (4, [0, 2, 1, 3]), (8, [0, 4, 2, 6, 1, 5, 3, 7])]
)
def test_turns_halve_what_is_left(places: int, expected: list[int]) -> None:
    assert list(turns(places, 0.0)) == expected
