"""The supervisor: starts workers, hands out files as they finish, and loses no file when a worker dies or hangs.

A file that was in flight when its worker died is scanned again alone, in a fresh process on the CPU: so a GPU that is
lost, or that another process has filled, costs time and no result, and a file that kills its process costs no other
file. One whose process dies once more gets a row that says so. All decisions are made in the thread that iterates;
workers' messages reach it through one queue.
"""

from __future__ import annotations

import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from deepscan import errors
from deepscan.errors import DeepscanError, InputError, MachineError
from deepscan.results import Status, VideoResult
from deepscan.runtime.media.content import signature_of
from deepscan.runtime.pipeline.pipeline import StageTimes
from deepscan.runtime.pipeline.stages import Progress
from deepscan.runtime.workers.plan import needed_for
from deepscan.runtime.workers.protocol import (
    Detector,
    Failed,
    Finished,
    FromWorker,
    Heartbeat,
    Job,
    JobRequest,
    LogLine,
    NoMoreJobs,
    Problem,
    Ready,
)
from deepscan.runtime.workers.worker_slots import (
    LONGEST_GAP_SECONDS,
    STALLED_SECONDS,
    AwakeClock,
    WorkerSlot,
    standings,
    summed_decoders,
    summed_times,
)
from deepscan.wording import plural

if TYPE_CHECKING:
    from deepscan.export.parity.conversion import Report
    from deepscan.runtime.media.frame_tasks import VideoJob
    from deepscan.runtime.workers.plan import WorkerPlan
    from deepscan.runtime.workers.transport import WorkerProcess

    Start: TypeAlias = Callable[[WorkerPlan, str, Callable[[FromWorker | None], None]], WorkerProcess]

# An event by its name, with what belongs to it.
Note: TypeAlias = Callable[..., None]
FIRST: Final = 0


def unnoted(event: str, **details: object) -> None:
    """Take an event and do nothing with it."""


class Supervisor:
    """Scans with several processes, once.

    Args:
        jobs: the files, in the order in which they are handed out.
        plans: one for each process, at least one. The others start when the first one is ready: what it measures, and
            keeps, they find.
        alone: what scans a file again whose worker died.
        start: starts a worker's process.
        report: takes a line for people.
        timeout_seconds: how long a file may take.
        note: takes what happens, for a log.
        clock: tells the seconds by which workers are judged.

    Attributes:
        progress: how far it is.
        stopping: no further file is begun.
    """

    def __init__(
        self,
        jobs: Sequence[VideoJob],
        plans: Sequence[WorkerPlan],
        *,
        alone: WorkerPlan,
        start: Start,
        report: Report,
        timeout_seconds: float | None = None,
        note: Note = unnoted,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.progress = Progress()
        self._jobs = {job.index: job for job in jobs}
        self._pending = deque(job.index for job in jobs)
        self._suspects: deque[int] = deque()
        self._overdue: set[int] = set()
        self._parts: dict[int, list[VideoResult]] = {}
        self._seats = [WorkerSlot(plan, f"worker {number + 1}") for number, plan in enumerate(plans)]
        self._alone = WorkerSlot(alone, "worker for single files")
        self._start_process = start
        self._report, self._note = report, note
        self._timeout_seconds = timeout_seconds
        self._clock = clock or AwakeClock()
        self._messages: queue.SimpleQueue[tuple[WorkerSlot, int, FromWorker | None]] = queue.SimpleQueue()
        self._detectors: tuple[Detector, ...] = ()
        self.stopping = False

    def stop(self) -> None:
        """Begin no further file; those in flight are finished. May be called from a signal's handler."""
        self.stopping = True

    def add(self, job: VideoJob) -> None:
        """Scan one more file after all others; may be called between two results while others are scanned.

        A scan that was told to stop does not begin it.
        """
        self._jobs[job.index] = job
        self._pending.append(job.index)

    def __iter__(self) -> Iterator[VideoResult]:
        """Run; leaving the loop early ends all processes.

        Raises:
            DeepscanError: the first worker cannot start, or no worker is left.
        """
        try:
            if self._pending:
                self._start(self._seats[FIRST])
            while any(seat.process is not None for seat in self._all_seats()):
                try:
                    seat, generation, message = self._messages.get(timeout=self._patience())
                except queue.Empty:
                    self._kill_overdue()
                    continue
                if generation == seat.generation:
                    yield from self._handled(seat, message)
        finally:
            for seat in self._all_seats():
                if seat.process is not None:
                    seat.process.kill()
                    seat.process.end()

    def _all_seats(self) -> list[WorkerSlot]:
        return [*self._seats, self._alone]

    def _start(self, seat: WorkerSlot) -> None:
        seat.generation += 1
        generation = seat.generation

        def hear(message: FromWorker | None) -> None:
            self._messages.put((seat, generation, message))

        seat.take(self._start_process(seat.plan, seat.name, hear))
        self._note("worker_started", worker=seat.name, device=seat.plan.device, gpu=seat.plan.gpu)

    def _patience(self) -> float | None:
        """Return how long to wait for a message at most; None while no worker has anything to do."""
        deadlines = [seat.deadline(self._timeout_seconds) for seat in self._all_seats()]
        known = [deadline for deadline in deadlines if deadline is not None]
        return min(LONGEST_GAP_SECONDS / 2, max(0.0, min(known) - self._clock())) if known else None

    def _kill_overdue(self) -> None:
        now = self._clock()
        for seat in self._all_seats():
            deadline = seat.deadline(self._timeout_seconds)
            if seat.process is None or deadline is None or now < deadline:
                continue
            overdue = seat.overdue(self._timeout_seconds, now)
            hangs = now >= seat.moved + STALLED_SECONDS
            seat.killed = (
                f"nothing in it moved for {STALLED_SECONDS:.0f} seconds"
                if hangs
                else f"a file took longer than {self._timeout_seconds:g} {plural(self._timeout_seconds or 0, 'second')}"
            )
            self._overdue.update(overdue)
            seat.process.kill()  # its end will be heard

    def _handled(self, seat: WorkerSlot, message: FromWorker | None) -> Iterator[VideoResult]:
        """Do what a message asks for; None is the end of the process."""
        match message:
            case LogLine(line):
                self._report(line)
            case Ready():
                self._make_ready(seat, message)
            case JobRequest():
                seat.waiting += 1
                self._hand_out()
            case Finished(result):
                yield from self._finished(seat, result)
            case Heartbeat():
                seat.stands(message, self._clock())
                self._sum_up(message)
            case Failed():
                seat.failure = message
            case None:
                yield from self._ended(seat)

    def _make_ready(self, seat: WorkerSlot, ready: Ready) -> None:
        seat.ready = True
        self._note("worker_ready", worker=seat.name)
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
                if not files or self.stopping:
                    seat.process.tell(NoMoreJobs())
                    continue
                index = files.popleft()
                seat.hand(index, self._clock())
                job = self._jobs[index]
                job.started = job.started or time.monotonic()
                seat.process.tell(Job(index, os.fsencode(job.path), _problem(job.problem), job.planned))
                self._note("file_retried" if alone else "file_started", file=job.path, worker=seat.name)

    def _finished(self, seat: WorkerSlot, result: VideoResult) -> Iterator[VideoResult]:
        """Pass on the results of a file when all of them are there: of a worker that dies between two, none counts."""
        job = self._jobs[result.index]
        parts = self._parts.setdefault(result.index, [])
        parts.append(msgspec.structs.replace(result, path=job.path))
        if len(parts) < len(self._detectors):
            return
        del self._parts[result.index]
        seat.in_flight.pop(result.index, None)
        yield from self._done(job, parts)
        if seat is self._alone:
            self._hand_out()

    def _done(self, job: VideoJob, results: Sequence[VideoResult]) -> Iterator[VideoResult]:
        job.share_done = 1.0
        self.progress.videos += 1
        for result in results:
            self._note(
                "file_finished",
                file=job.path,
                model=result.model,
                status=result.status,
                score=None if result.score is None else float(f"{result.score:.6g}"),
                label=result.label,
                seconds=round(result.elapsed_seconds, 3),
            )
            if result.status == "over_limit":
                self._note("limit", file=job.path, reason=result.reason)
        yield from results

    def _ended(self, seat: WorkerSlot) -> Iterator[VideoResult]:
        """Take note of the end of a worker, and see to the files that it had."""
        assert seat.process is not None
        death = seat.process.end()
        lost = seat.leave()
        why = seat.killed or (seat.failure.text if seat.failure is not None else death)
        if not self._detectors and not seat.killed:
            if self.stopping and not why:
                return
            raise (
                _error_of(seat.failure)
                if seat.failure is not None
                else MachineError(
                    f"Nothing could be scanned, as {death or 'its process ended'}: run `deepscan doctor`."
                )
            )
        if why or lost:
            why = why or "its process ended without a word"
            self._note("worker_died", worker=seat.name, reason=why)
            self._report(f"{seat.name} has ended: {why}")
        for index in lost:
            self._parts.pop(index, None)
            if seat is self._alone or (index in self._overdue and len(lost) == 1):
                yield from self._given_up(index, why)
            else:
                self._overdue.discard(index)
                self._suspects.append(index)
        self._replace(seat, why)

    def _replace(self, seat: WorkerSlot, why: str) -> None:
        """Start the workers that are needed now."""
        comes_up = seat.ready or not why
        if not comes_up and seat.plan == self._alone.plan:
            raise MachineError(f"No worker can be started any more ({why}): run the same command again.")
        if self.stopping:
            return
        if self._suspects and self._alone.process is None:
            self._start(self._alone)
        if not self._pending:
            return
        if seat is self._alone or not why:  # files were added when the others had been told that there are no more
            if all(other.process is None for other in self._seats):
                self._start(self._seats[FIRST])
            return
        if not comes_up:
            # The GPU is lost, or others have taken its memory.
            self._report(f"{seat.name} goes on on the CPU.")
            seat.plan = self._alone.plan
        self._start(seat)

    def _given_up(self, index: int, why: str) -> Iterator[VideoResult]:
        """Write the rows of a file that ended its process, though it was alone in it."""
        job = self._jobs[index]
        content = _content_still_there(job)
        status: Status = "timeout" if index in self._overdue else "crashed"
        end = "was ended" if status == "timeout" else "ended"
        rows = [
            VideoResult(
                index=index,
                row=index * len(self._detectors) + number,
                path=job.path,
                status=status,
                reason=f"Its process {end}, with this file alone in it: {why}.",
                model=detector.model,
                backend=detector.backend,
                precision=detector.precision,
                weights_sha256=detector.weights_sha256,
                settings_sha256=detector.settings_sha256,
                elapsed_seconds=time.monotonic() - job.started,
                content=content,
            )
            for number, detector in enumerate(self._detectors)
        ]
        yield from self._done(job, rows)

    def _sum_up(self, standing: Heartbeat) -> None:
        for index, share in standing.shares.items():
            self._jobs[index].share_done = max(self._jobs[index].share_done, share)
        known = standings(self._all_seats())
        self.progress.frames = sum(each.frames for each in known)
        self.progress.faces = sum(each.faces for each in known)

    def stage_times(self) -> list[StageTimes]:
        """Return where the time went, stage by stage, summed over all workers."""
        return summed_times(standings(self._all_seats()))

    def decoded_by(self) -> tuple[int, dict[str, int]]:
        """Return how many videos NVDEC decoded, and how many the CPU although there is NVDEC, by the reason."""
        return summed_decoders(standings(self._all_seats()))


def _content_still_there(job: VideoJob) -> str | None:
    """Return what the file held when the scan was planned, if nothing has touched it since."""
    try:
        signature = signature_of(os.stat(job.path))
    except (OSError, ValueError):
        return None
    planned = job.planned
    return planned.content if planned is not None and planned.signature == signature else None


def _problem(error: InputError | None) -> Problem | None:
    return None if error is None else Problem(type(error).__name__, os.fsencode(str(error)))


def _error_of(failure: Failed) -> DeepscanError:
    """Return the error that a worker could not go on for, as if it had been raised here."""
    kind = getattr(errors, failure.kind, None)
    known = isinstance(kind, type) and issubclass(kind, DeepscanError)
    return kind(failure.text) if known and kind is not None else MachineError(failure.text)
