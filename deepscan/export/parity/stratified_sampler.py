"""Takes a limited number of items from several videos: as many from each as possible, spread over its length."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Priority:
    """Which items of a video are kept: the lowest ones.

    Attributes:
        repeats: how many items of the same place of the video came before it, in pairs.
        turn: when its place has its turn.
        number: how many items of the video came before it.
    """

    repeats: int
    turn: int
    number: int


@dataclass(order=True, slots=True)
class _Held(Generic[T]):
    """An item; the least urgent one comes first out of a heap."""

    key: tuple[int, int, int]
    priority: Priority = field(compare=False)
    item: T = field(compare=False)


class StratifiedSampler(Generic[T]):
    """Holds at most `count` items of several videos.

    When there are too many, the video that has most gives its least urgent one away; of those that have most, the one
    that comes last. What is left in the end does not depend on the order in which the videos' items were offered.

    Args:
        count: at least 1.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: dict[int, list[_Held[T]]] = {}
        self.total = 0

    def offer(self, video: int, priority: Priority, item: T) -> None:
        """Take an item of a video, which has its number."""
        key = (-priority.repeats, -priority.turn, -priority.number)
        heapq.heappush(self._held.setdefault(video, []), _Held(key, priority, item))
        self.total += 1
        if self.total > self._count:
            fullest = max(self._held, key=lambda number: (len(self._held[number]), number))
            heapq.heappop(self._held[fullest])
            if not self._held[fullest]:
                del self._held[fullest]
            self.total -= 1

    def clear(self, video: int) -> None:
        """Forget the items of a video."""
        self.total -= len(self._held.pop(video, []))

    def videos(self) -> int:
        """Return of how many videos there are items."""
        return len(self._held)

    def size(self, video: int) -> int:
        """Return how many items of a video are held."""
        return len(self._held.get(video, []))

    def largest(self) -> int:
        """Return how many items are held of the video that has most."""
        return max(map(len, self._held.values()), default=0)

    def items(self, video: int) -> list[T]:
        """Return the items of a video, in the order in which they were offered."""
        return [held.item for held in sorted(self._held.get(video, []), key=lambda held: held.priority.number)]


def turns(places: int, shift: float) -> Sequence[int]:
    """Return for each of `places` equal parts of a video when it has its turn, from 0.

    However many have had theirs, they lie evenly over the video: the turns follow van der Corput's sequence.

    Args:
        places: at least 1.
        shift: where to begin, 0 to 1.
    """
    found: dict[int, None] = {}
    number = 0
    while len(found) < places:
        found.setdefault(int((_van_der_corput(number) + shift) % 1.0 * places), None)
        number += 1
    turn_of = {place: turn for turn, place in enumerate(found)}
    return [turn_of[place] for place in range(places)]


def _van_der_corput(number: int) -> float:
    """Mirror the binary digits of a number at the point: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    value, weight = 0.0, 0.5
    while number:
        value += weight * (number & 1)
        number, weight = number >> 1, weight / 2
    return value
