"""What a pipeline writes into a trace: the calls of its stages, its waits, and what its links hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from deepscan.runtime.pipeline.queues import BoundedQueue
    from deepscan.runtime.pipeline.trace import TraceWriter

# Shorter waits get no event of their own; what a call waited for in all is among its details.
SHORTEST_SECONDS: Final = 100e-6
# A link's counters are written at most so often.
COUNTER_SECONDS: Final = 0.01


class PipelineTrace:
    """Writes what the threads of one pipeline do.

    Args:
        writer: of this process.
        links: with their names.
    """

    def __init__(self, writer: TraceWriter, links: Sequence[tuple[str, BoundedQueue[Any]]]) -> None:
        self._writer = writer
        self._links = links
        self._lock = threading.Lock()
        self._counted = [float("-inf")] * len(links)

    def waited(self, category: str, seconds: float) -> None:
        """Write a wait that has just ended: `waiting` for input, or `blocked` on output."""
        if seconds >= SHORTEST_SECONDS:
            self._writer.took(category, category, time.perf_counter() - seconds, seconds)

    def called(self, name: str, started: float, *, waited: float, blocked: float, items: int, subject: str) -> None:
        """Write a call of a stage's function that has just ended.

        Args:
            name: of the stage.
            started: `time.perf_counter()` when it began.
            waited: seconds that the thread waited for its input, before that.
            blocked: seconds of the call in which there was no room for its output.
            items: how many it got.
            subject: the video, if there is one; else empty.
        """
        elapsed = time.perf_counter() - started
        details: dict[str, str | float] = {"items": items, "busy_ms": round(1000 * (elapsed - blocked), 3)}
        details |= {"waiting_ms": round(1000 * waited, 3), "blocked_ms": round(1000 * blocked, 3)}
        if subject:
            details["path"] = subject
        self._writer.took(name, "busy", started, elapsed, **details)

    def filled(self, number: int) -> None:
        """Write what a link holds, unless that was done a moment ago."""
        now = time.perf_counter()
        with self._lock:
            if now - self._counted[number] < COUNTER_SECONDS:
                return
            self._counted[number] = now
        name, link = self._links[number]
        items, held_bytes = link.size()
        self._writer.counted(f"{name}: bytes", now, {"bytes": held_bytes})
        self._writer.counted(f"{name}: items", now, {"items": items})

    def flush(self) -> None:
        """Write what waits in the buffer."""
        self._writer.flush()
