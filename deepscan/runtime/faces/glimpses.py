"""Tells which tracks are mere glimpses: one look found the face, and the looks beside it in the shot did not."""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Glimpses:
    """Notes how often each open track was seen.

    Of a shot with a single look nothing is a glimpse: there was no other chance to see the face.
    """

    def __init__(self) -> None:
        self._sightings: dict[int, int] = {}
        self._missed: set[int] = set()
        self._once_in_shot: set[int] = set()
        self._looks_in_shot = 0

    def start_shot(self) -> None:
        """Begin another shot: what it does not show says nothing about the one before."""
        self._once_in_shot.clear()
        self._looks_in_shot = 0

    def look(self, seen: Collection[int]) -> None:
        """Take the tracks that a look saw."""
        missed = self._once_in_shot.difference(seen)
        self._missed |= missed
        self._once_in_shot -= missed
        for number in seen:
            self._sightings[number] = self._sightings.get(number, 0) + 1
            if self._sightings[number] > 1:
                self._once_in_shot.discard(number)
                self._missed.discard(number)
            elif self._looks_in_shot:  # the look before did not see it
                self._missed.add(number)
            else:
                self._once_in_shot.add(number)
        self._looks_in_shot += 1

    def end(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Forget tracks that have ended; return which of them were glimpses."""
        found = []
        for number in numbers:
            if number in self._missed:
                found.append(number)
            self._sightings.pop(number, None)
            self._missed.discard(number)
            self._once_in_shot.discard(number)
        return tuple(found)
