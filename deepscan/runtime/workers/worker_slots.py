"""What a supervisor knows of its workers: who is there, what they have, and how far all of them are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from deepscan.runtime.pipeline.pipeline import StageTimes

if TYPE_CHECKING:
    from deepscan.runtime.workers.plan import WorkerPlan
    from deepscan.runtime.workers.protocol import Failed, Heartbeat
    from deepscan.runtime.workers.transport import WorkerProcess

# A worker with files in which nothing moves for so long hangs: it decodes no frame, searches none, cuts no crop and
# scores none. The slowest detector on a slow processor takes seconds for a clip.
STALLED_SECONDS: Final = 300.0
# Whoever measures with an `AwakeClock` reads it more often than this.
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


@dataclass(slots=True, eq=False)
class WorkerSlot:
    """A place for one worker at a time.

    Attributes:
        plan: what its workers are.
        name: of it, for people.
        process: the worker that is there.
        generation: how many workers were there; tells late messages of an earlier one.
        ready: the worker has loaded everything.
        in_flight: files that it has, and when each was handed out, by the supervisor's clock.
        waiting: how many of its decoders ask for a file and got no answer yet.
        failure: why the worker says that it cannot go on.
        killed: why the supervisor ended it.
        standing: what it said last of how far it is.
        moved: when something was last seen to move in it.
        past: the last standings of those before it.
    """

    plan: WorkerPlan
    name: str
    process: WorkerProcess | None = None
    generation: int = 0
    ready: bool = False
    in_flight: dict[int, float] = field(default_factory=dict)
    waiting: int = 0
    failure: Failed | None = None
    killed: str = ""
    standing: Heartbeat | None = None
    moved: float = 0.0
    past: list[Heartbeat] = field(default_factory=list)

    def take(self, process: WorkerProcess) -> None:
        """Seat a new worker."""
        self.process = process
        self.ready, self.waiting, self.failure, self.killed, self.standing = False, 0, None, "", None

    def hand(self, index: int, now: float) -> None:
        """Note that the worker has a file from now on."""
        if not self.in_flight:
            self.moved = now
        self.in_flight[index] = now

    def stands(self, standing: Heartbeat, now: float) -> None:
        """Note how far the worker says it is."""
        if self.standing is None or standing.moved != self.standing.moved:
            self.moved = now
        self.standing = standing

    def leave(self) -> list[int]:
        """Empty the seat, and return the files that its worker had."""
        self.process = None
        if self.standing is not None:
            self.past.append(self.standing)
            self.standing = None
        lost, self.in_flight = sorted(self.in_flight), {}
        return lost

    def deadline(self, timeout_seconds: float | None) -> float | None:
        """Return when the worker will have taken too long for something; None while it has nothing.

        So one that is still loading detectors, or measuring backends, has all the time it takes.
        """
        if not self.in_flight or self.process is None or self.killed:
            return None
        stalled = self.moved + STALLED_SECONDS
        if timeout_seconds is None:
            return stalled
        return min(stalled, min(self.in_flight.values()) + timeout_seconds)

    def overdue(self, timeout_seconds: float | None, now: float) -> list[int]:
        """Return the files that the worker has had for too long: where it hangs, all of them."""
        if now >= self.moved + STALLED_SECONDS:
            return list(self.in_flight)
        return [index for index, since in self.in_flight.items() if timeout_seconds and now >= since + timeout_seconds]


def standings(seats: Iterable[WorkerSlot]) -> list[Heartbeat]:
    """Return the last standing of each worker that there is or was."""
    return [each for seat in seats for each in (*seat.past, seat.standing) if each is not None]


def summed_times(known: Iterable[Heartbeat]) -> list[StageTimes]:
    """Return where the time went, stage by stage, summed over all workers."""
    total: dict[str, StageTimes] = {}
    for times in (each for standing in known for each in standing.times):
        stage = total.setdefault(times.name, StageTimes(times.name, 0))
        stage.threads += times.threads
        stage.items += times.items
        stage.busy_seconds += times.busy_seconds
        stage.waiting_seconds += times.waiting_seconds
        stage.blocked_seconds += times.blocked_seconds
        stage.cpu_seconds += times.cpu_seconds
    return list(total.values())


def summed_decoders(known: Iterable[Heartbeat]) -> tuple[int, dict[str, int]]:
    """Return how many videos NVDEC decoded, and how many the CPU although there is NVDEC, by the reason."""
    by_nvdec, by_cpu = 0, dict[str, int]()
    for standing in known:
        by_nvdec += standing.by_nvdec
        for reason, count in standing.by_cpu.items():
            by_cpu[reason] = by_cpu.get(reason, 0) + count
    return by_nvdec, by_cpu
