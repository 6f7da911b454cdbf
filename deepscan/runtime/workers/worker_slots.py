"""A supervisor's records of its workers: which are running, what they are scanning, and how far they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from deepscan.runtime.pipeline.pipeline import StageTimes

if TYPE_CHECKING:
    from deepscan.runtime.workers.plan import WorkerPlan
    from deepscan.runtime.workers.protocol import Failed, Heartbeat
    from deepscan.runtime.workers.transport import Worker

# A worker that has files, but has decoded, searched, cropped and scored nothing for this long, hangs. The slowest
# detector on a slow processor takes seconds for a clip.
STALLED_SECONDS: Final = 300.0
# An `AwakeClock` is read more often than this.
LONGEST_GAP_SECONDS: Final = 5.0


class AwakeClock:
    """Clock that counts only the beginning of a long gap between two readings.

    A process that was stopped, frozen with its container, suspended with its machine, or kept busy by its caller has
    not listened to its workers in the meantime, so that time must not count against them.
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
        plan: resources of its workers.
        name: name for messages.
        worker: the running worker, if any.
        generation: number of workers so far, by which late messages of an earlier one are recognized.
        ready: whether the worker has loaded everything.
        in_flight: when each input of the worker was handed out, on the supervisor's clock, by the input's index.
        failure: error that the worker reported.
        killed: reason why the supervisor killed it; empty if it did not.
        heartbeat: last heartbeat of the worker.
        moved: when the worker last made progress.
        past: last heartbeat of each earlier worker.
    """

    plan: WorkerPlan
    name: str
    worker: Worker | None = None
    generation: int = 0
    ready: bool = False
    in_flight: dict[int, float] = field(default_factory=dict)
    failure: Failed | None = None
    killed: str = ""
    heartbeat: Heartbeat | None = None
    moved: float = 0.0
    past: list[Heartbeat] = field(default_factory=list)

    def put(self, worker: Worker) -> None:
        """Put a new worker into the slot."""
        self.worker = worker
        self.ready, self.failure, self.killed, self.heartbeat = False, None, "", None

    def hand(self, index: int, now: float) -> None:
        """Record that the worker has been given an input."""
        if not self.in_flight:
            self.moved = now
        self.in_flight[index] = now

    def beat(self, heartbeat: Heartbeat, now: float) -> None:
        """Record a heartbeat of the worker."""
        if self.heartbeat is None or heartbeat.moved != self.heartbeat.moved:
            self.moved = now
        self.heartbeat = heartbeat

    def clear(self) -> list[int]:
        """Empty the slot, and return the indices of the inputs that its worker had, in order."""
        self.worker = None
        if self.heartbeat is not None:
            self.past.append(self.heartbeat)
            self.heartbeat = None
        lost, self.in_flight = sorted(self.in_flight), {}
        return lost

    def deadline(self, timeout_seconds: float | None) -> float | None:
        """Return when the worker times out; None while it has no input, so that loading may take any time."""
        if not self.in_flight or self.worker is None or self.killed:
            return None
        stalled = self.moved + STALLED_SECONDS
        if timeout_seconds is None:
            return stalled
        return min(stalled, min(self.in_flight.values()) + timeout_seconds)

    def overdue(self, timeout_seconds: float | None, now: float) -> list[int]:
        """Return the inputs that the worker has had for too long; if it hangs, all of them."""
        if now >= self.moved + STALLED_SECONDS:
            return list(self.in_flight)
        return [index for index, since in self.in_flight.items() if timeout_seconds and now >= since + timeout_seconds]


def summed_times(known: Iterable[Heartbeat]) -> list[StageTimes]:
    """Return the times of each stage, summed over all workers."""
    total: dict[str, StageTimes] = {}
    for times in (each for heartbeat in known for each in heartbeat.times):
        stage = total.setdefault(times.name, StageTimes(times.name, 0))
        for each in fields(times)[1:]:
            setattr(stage, each.name, getattr(stage, each.name) + getattr(times, each.name))
    return list(total.values())


def summed_decoders(known: Iterable[Heartbeat]) -> tuple[int, dict[str, int]]:
    """Return how many videos NVDEC decoded, and how many fell back to the CPU, by reason."""
    by_nvdec, by_cpu = 0, Counter[str]()
    for heartbeat in known:
        by_nvdec += heartbeat.by_nvdec
        by_cpu.update(heartbeat.by_cpu)
    return by_nvdec, by_cpu
