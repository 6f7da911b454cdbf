from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.faces.tracking import Glimpses

SHOTS = st.lists(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=5), max_size=5)


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
