"""The supervisor: starts workers, hands out files as they finish, and loses no file when a worker dies.

A file that was in flight when its worker died is scanned again alone, in a fresh process on the CPU: so a GPU that is
lost, or that another process has filled, costs time and no result. A file whose process dies once more gets a row that
says so. All decisions are made in the thread that iterates; workers' messages reach it through one queue.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from deepscan import errors
from deepscan.errors import DeepscanError, MachineError
from deepscan.runtime.pipeline import StageTimes
from deepscan.runtime.results import VideoResult
from deepscan.runtime.stages import Progress
from deepscan.runtime.worker_messages import (
    Detector,
    Failed,
    Finished,
    FromWorker,
    NoMore,
    Ready,
    Said,
    Standing,
    Wants,
    Work,
)
from deepscan.runtime.worker_plan import needed_for

if TYPE_CHECKING:
    from deepscan.runtime.conversion import Report
    from deepscan.runtime.messages import VideoJob
    from deepscan.runtime.worker_plan import WorkerPlan
    from deepscan.runtime.worker_process import WorkerProcess

    Start: TypeAlias = Callable[[WorkerPlan, str, Callable[[FromWorker | None], None]], WorkerProcess]

FIRST_IS_READY: Final = 0


@dataclass(slots=True, eq=False)
class _Seat:
    """A place for one worker at a time.

    Attributes:
        plan: what its workers are.
        name: of it, for people.
        process: the worker that is there.
        generation: how many workers were there; tells late messages of an earlier one.
        ready: the worker has loaded everything.
        in_flight: files that it has.
        waiting: how many of its decoders ask for a file and got no answer yet.
        failure: why the worker says that it cannot go on.
        standing: what it said last of how far it is.
        past: the same, of those before it, added up.
    """

    plan: WorkerPlan
    name: str
    process: WorkerProcess | None = None
    generation: int = 0
    ready: bool = False
    in_flight: set[int] = field(default_factory=set)
    waiting: int = 0
    failure: Failed | None = None
    standing: Standing | None = None
    past: list[Standing] = field(default_factory=list)


class Supervisor:
    """Scans with several processes, once.

    Args:
        jobs: the files, in the order in which they are handed out.
        plans: one for each process, at least one. The others start when the first one is ready: what it measures, and
            keeps, they find.
        alone: what scans a file again whose worker died.
        start: starts a worker's process.
        report: takes a line for people.

    Attributes:
        progress: how far it is.
    """

    def __init__(
        self, jobs: Sequence[VideoJob], plans: Sequence[WorkerPlan], *, alone: WorkerPlan, start: Start, report: Report
    ) -> None:
        self.progress = Progress()
        self._jobs = {job.index: job for job in jobs}
        self._pending = deque(job.index for job in jobs)
        self._suspects: deque[int] = deque()
        self._parts: dict[int, list[VideoResult]] = {}
        self._seats = [_Seat(plan, f"worker {number + 1}") for number, plan in enumerate(plans)]
        self._alone = _Seat(alone, "worker for single files")
        self._start_process = start
        self._report = report
        self._messages: queue.SimpleQueue[tuple[_Seat, int, FromWorker | None]] = queue.SimpleQueue()
        self._detectors: tuple[Detector, ...] = ()

    def __iter__(self) -> Iterator[VideoResult]:
        """Run; leaving the loop early ends all processes.

        Raises:
            DeepscanError: the first worker cannot start, or no worker is left.
        """
        try:
            self._start(self._seats[FIRST_IS_READY])
            while any(seat.process is not None for seat in self._all_seats()):
                seat, generation, message = self._messages.get()
                if generation == seat.generation:
                    yield from self._handled(seat, message)
        finally:
            for seat in self._all_seats():
                if seat.process is not None:
                    seat.process.kill()
                    seat.process.end()

    def _all_seats(self) -> list[_Seat]:
        return [*self._seats, self._alone]

    def _start(self, seat: _Seat) -> None:
        seat.generation += 1
        generation = seat.generation
        seat.ready, seat.waiting, seat.failure, seat.standing = False, 0, None, None
        seat.process = self._start_process(
            seat.plan, seat.name, lambda message: self._messages.put((seat, generation, message))
        )

    def _handled(self, seat: _Seat, message: FromWorker | None) -> Iterator[VideoResult]:
        """Do what a message asks for; None is the end of the process."""
        match message:
            case Said(line):
                self._report(line)
            case Ready():
                self._make_ready(seat, message)
            case Wants():
                seat.waiting += 1
                self._hand_out()
            case Finished(result):
                yield from self._finished(seat, result)
            case Standing():
                seat.standing = message
                self._sum_up(message)
            case Failed():
                seat.failure = message
            case None:
                yield from self._ended(seat)

    def _make_ready(self, seat: _Seat, ready: Ready) -> None:
        seat.ready = True
        if self._detectors:
            return
        self._detectors = ready.detectors
        needed = needed_for(ready.engines, [other.plan for other in self._seats])
        for other, wanted in zip(self._seats, needed, strict=True):
            if wanted and other is not seat:
                self._start(other)

    def _hand_out(self) -> None:
        """Answer the decoders that wait for a file; suspects go one by one to the process that is for them."""
        for seat in self._all_seats():
            alone = seat is self._alone
            files = self._suspects if alone else self._pending
            while seat.waiting and seat.process is not None and not (alone and seat.in_flight):
                seat.waiting -= 1
                if not files:
                    seat.process.tell(NoMore())
                    continue
                index = files.popleft()
                seat.in_flight.add(index)
                job = self._jobs[index]
                job.started = time.monotonic()
                seat.process.tell(Work(index, job_path(job)))

    def _finished(self, seat: _Seat, result: VideoResult) -> Iterator[VideoResult]:
        """Pass on the results of a file when all of them are there: of a worker that dies between two, none counts."""
        job = self._jobs[result.index]
        parts = self._parts.setdefault(result.index, [])
        parts.append(replace(result, path=job.path))
        if len(parts) < len(self._detectors):
            return
        del self._parts[result.index]
        seat.in_flight.discard(result.index)
        job.share_done = 1.0
        self.progress.videos += 1
        yield from parts
        if seat is self._alone:
            self._hand_out()

    def _ended(self, seat: _Seat) -> Iterator[VideoResult]:
        """Take note of the end of a worker, and see to the files that it had."""
        assert seat.process is not None
        death, seat.process = seat.process.end(), None
        if seat.standing is not None:
            seat.past.append(seat.standing)
            seat.standing = None
        why = seat.failure.text if seat.failure is not None else death
        lost, seat.in_flight = sorted(seat.in_flight), set()
        if not self._detectors:
            raise (
                _error_of(seat.failure)
                if seat.failure is not None
                else MachineError(
                    f"Nothing could be scanned, as {death or 'its process ended'}: run `deepscan doctor`."
                )
            )
        if why or lost:
            self._report(f"{seat.name} has ended: {why or 'without a word'}")
        for index in lost:
            self._parts.pop(index, None)
            if seat is self._alone:
                yield from self._given_up(index, why)
            else:
                self._suspects.append(index)
        self._replace(seat, why)

    def _replace(self, seat: _Seat, why: str) -> None:
        """Start the workers that are needed now."""
        comes_up = seat.ready or not why
        if not comes_up and seat.plan == self._alone.plan:
            raise MachineError(f"No worker can be started any more ({why}): run the same command again.")
        if self._suspects and self._alone.process is None:
            self._start(self._alone)
        if seat is self._alone or not why or not self._pending:
            return
        if not comes_up:
            # The GPU is lost, or others have taken its memory.
            self._report(f"{seat.name} goes on on the CPU.")
            seat.plan = self._alone.plan
        self._start(seat)

    def _given_up(self, index: int, why: str) -> Iterator[VideoResult]:
        """Write the rows of a file that ended its process twice."""
        job = self._jobs[index]
        job.share_done = 1.0
        self.progress.videos += 1
        for number, detector in enumerate(self._detectors):
            yield VideoResult(
                index=index,
                row=index * len(self._detectors) + number,
                path=job.path,
                status="crashed",
                reason=f"Scanning it ended the process twice, also alone ({why or 'without a word'}).",
                model=detector.model,
                backend=detector.backend,
                precision=detector.precision,
                weights_sha256=detector.weights_sha256,
                settings_sha256=detector.settings_sha256,
                elapsed_seconds=time.monotonic() - job.started,
            )

    def _sum_up(self, standing: Standing) -> None:
        for index, share in standing.shares.items():
            self._jobs[index].share_done = max(self._jobs[index].share_done, share)
        standings = self._standings()
        self.progress.frames = sum(each.frames for each in standings)
        self.progress.faces = sum(each.faces for each in standings)

    def _standings(self) -> list[Standing]:
        now = [seat.standing for seat in self._all_seats() if seat.standing is not None]
        return [*now, *(each for seat in self._all_seats() for each in seat.past)]

    def stage_times(self) -> list[StageTimes]:
        """Return where the time went, stage by stage, summed over all workers."""
        total: dict[str, StageTimes] = {}
        for times in (each for standing in self._standings() for each in standing.times):
            known = total.setdefault(times.name, StageTimes(times.name, 0))
            known.threads += times.threads
            known.items += times.items
            known.busy_seconds += times.busy_seconds
            known.waiting_seconds += times.waiting_seconds
            known.blocked_seconds += times.blocked_seconds
            known.cpu_seconds += times.cpu_seconds
        return list(total.values())

    def decoded_by(self) -> tuple[int, dict[str, int]]:
        """Return how many videos NVDEC decoded, and how many the CPU although there is NVDEC, by the reason."""
        standings = self._standings()
        reasons: dict[str, int] = {}
        for reason, count in (item for standing in standings for item in standing.by_cpu.items()):
            reasons[reason] = reasons.get(reason, 0) + count
        return sum(standing.by_nvdec for standing in standings), reasons


def job_path(job: VideoJob) -> bytes:
    """Return the path of a file as the operating system has it."""
    return job.path.encode(errors="surrogateescape")


def _error_of(failure: Failed) -> DeepscanError:
    """Return the error that a worker could not go on for, as if it had been raised here."""
    kind = getattr(errors, failure.kind, None)
    known = isinstance(kind, type) and issubclass(kind, DeepscanError)
    return kind(failure.text) if known and kind is not None else MachineError(failure.text)
