"""The course of a score over time, in a fixed number of segments however long the video is."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WIDTH_SECONDS = 1.0
MAX_SEGMENTS = 128


@dataclass(slots=True)
class Bin:
    """What fell into one stretch of time: the time of its first and last value, their sum and number."""

    start_seconds: float
    end_seconds: float
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / self.count


class Timeline:
    """Collects values in bins of one second; when there are too many bins, pairs are joined and the width doubles."""

    def __init__(self) -> None:
        self._width = FIRST_WIDTH_SECONDS
        self._bins: dict[int, Bin] = {}

    def add(self, seconds: float, value: float) -> None:
        """Add a value at a time; times need not ascend."""
        number = int(seconds // self._width)
        found = self._bins.get(number)
        if found is None:
            found = self._bins[number] = Bin(seconds, seconds)
            self._shrink()
            found = self._bins[int(seconds // self._width)]
        found.start_seconds = min(found.start_seconds, seconds)
        found.end_seconds = max(found.end_seconds, seconds)
        found.total += value
        found.count += 1

    def bins(self) -> list[Bin]:
        """Return the bins that hold values, in the order of time."""
        return [self._bins[number] for number in sorted(self._bins)]

    def _shrink(self) -> None:
        while len(self._bins) > MAX_SEGMENTS:
            self._width *= 2
            joined: dict[int, Bin] = {}
            for number, old in sorted(self._bins.items()):
                new = joined.setdefault(number // 2, Bin(old.start_seconds, old.end_seconds))
                new.start_seconds = min(new.start_seconds, old.start_seconds)
                new.end_seconds = max(new.end_seconds, old.end_seconds)
                new.total += old.total
                new.count += old.count
            self._bins = joined
