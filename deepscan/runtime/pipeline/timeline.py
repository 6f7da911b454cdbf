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

    def join(self, part: Bin) -> None:
        """Add what fell into a stretch of time; it counts where it starts. Stretches may come in any order."""
        _join(self._bins, int(part.start_seconds // self._width), part)
        while len(self._bins) > MAX_SEGMENTS:
            self._width *= 2
            halved: dict[int, Bin] = {}
            for number, old in self._bins.items():
                _join(halved, number // 2, old)
            self._bins = halved

    def bins(self) -> list[Bin]:
        """Return the bins that hold values, in the order of time."""
        return [self._bins[number] for number in sorted(self._bins)]


def _join(bins: dict[int, Bin], number: int, part: Bin) -> None:
    found = bins.setdefault(number, Bin(part.start_seconds, part.end_seconds))
    found.start_seconds = min(found.start_seconds, part.start_seconds)
    found.end_seconds = max(found.end_seconds, part.end_seconds)
    found.total += part.total
    found.count += part.count
