"""A clock for patience: it stands still while nobody listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# Whoever measures with the clock reads it more often than this.
LONGEST_GAP_SECONDS: Final = 5.0


class AwakeClock:
    """Seconds that pass while it is read regularly; of a longer gap between two readings only the beginning counts.

    A process that was stopped, frozen with its container, suspended with its machine or kept busy by its caller has
    heard nothing of its workers meanwhile: that time says nothing about them.

    Args:
        now: the clock below it.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._read = now()
        self._awake = 0.0

    def __call__(self) -> float:
        """Return the seconds so far."""
        now = self._now()
        self._awake += min(now - self._read, LONGEST_GAP_SECONDS)
        self._read = now
        return self._awake
