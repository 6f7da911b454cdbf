"""The supervisor: starts workers, hands out jobs as they ask for them, and loses none when a worker dies or hangs.

A file that was in flight when its worker died is scanned again alone, in a fresh process on the CPU. So a lost or full
GPU costs time but no result, and a file that kills its process costs no other file: if the process dies again, the row
of the file says so. All decisions are made in the thread that iterates; messages of workers reach it through one queue.
"""

from __future__ import annotations

import logging
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from deepscan import errors
from deepscan.errors import DeepscanError, InputError, MachineError, OutputError
from deepscan.results import Status, VideoResult, row_number
from deepscan.runtime.media.content import signature_of
from deepscan.runtime.pipeline.pipeline import Progress
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
    Ready,
    Start,
)
from deepscan.runtime.workers.transport import LocalTransport, Transport
from deepscan.runtime.workers.worker_slots import (
    LONGEST_GAP_SECONDS,
    STALLED_SECONDS,
    AwakeClock,
    WorkerSlot,
)
from deepscan.wording import plural

if TYPE_CHECKING:
    from deepscan.options import ScanOptions
    from deepscan.runtime.pipeline.trace import Trace
    from deepscan.runtime.workers.plan import WorkerPlan

FIRST: Final = 0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """An input that is known beforehand to fail; no worker gets it."""

    index: int
    path: str
    error: InputError


class Supervisor:
    """Scans with several workers, once. Iterate over it for a `Finished` per input.

    Args:
        jobs: inputs to scan, taken one by one as workers ask. After its end it is asked again, as jobs may be added.
        plans: one per worker, at least one. The first worker starts alone: it finds out how many NVDEC engines there
            are, and so how many of the others are needed; and what no worker could load is reported once.
        alone: plan of the worker that scans a file again after its first worker died.
        options: options of the scan.
        detectors: what rows say about the detectors until a worker has loaded them.
        transport: place to run workers; by default, processes of this machine.
        trace: trace of the scan, of which each worker writes a part.
        frames: folder in which workers leave parts of a per-frame file, if there is to be one.
        clock: returns the seconds by which workers time out.

    Attributes:
        progress: progress of all workers.
        shares: share of each input in flight that is done, 0 to 1, by the input's index.
        stopping: whether no further input is begun.
    """

    def __init__(
        self,
        jobs: Iterator[Job | KnownFailure],
        plans: Sequence[WorkerPlan],
        *,
        alone: WorkerPlan,
        options: ScanOptions,
        detectors: Sequence[Detector],
        transport: Transport | None = None,
        trace: Trace | None = None,
        frames: str | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.progress = Progress()
        self.shares: dict[int, float] = {}
        self.stopping = False
        self._jobs = jobs
        self._next: Job | None = None
        self._in_flight: dict[int, tuple[Job, float]] = {}  # by index, with when it was first begun
        self._suspects: deque[Job] = deque()
        self._overdue: set[int] = set()
        self._slots = [WorkerSlot(plan, f"worker {number + 1}") for number, plan in enumerate(plans)]
        self._alone = WorkerSlot(alone, "worker for single files")
        self._all_slots = [*self._slots, self._alone]
        self._asked_for = plans[FIRST].device
        self._options = options
        self._detectors = tuple(detectors)
        self._transport = transport or LocalTransport()
        self._trace = trace
        self._frames = os.fsencode(frames) if frames is not None else None
        self._clock = clock or AwakeClock()
        self._messages: queue.SimpleQueue[tuple[WorkerSlot, int, FromWorker | None]] = queue.SimpleQueue()
        self._was_ready = False

    def stop(self) -> None:
        """Begin no further input, but finish those in flight. May be called from a signal handler."""
        self.stopping = True

    def __iter__(self) -> Iterator[Finished]:
        """Run; leaving the loop early ends all workers. If no input needs a worker, none is started.

        Raises:
            DeepscanError: the first worker cannot start, or no worker is left.
        """
        try:
            yield from self._look_ahead()
            if self._next is not None:
                self._start(self._slots[FIRST])
            while any(slot.worker is not None for slot in self._all_slots):
                try:
                    slot, generation, message = self._messages.get(timeout=self._patience())
                except queue.Empty:
                    self._kill_overdue()
                    continue
                if generation == slot.generation:
                    yield from self._handle(slot, message)
        finally:
            for slot in self._all_slots:
                if slot.worker is not None:
                    slot.worker.kill()
                    slot.worker.end()

    def _look_ahead(self) -> Iterator[Finished]:
        """Fetch the next input that needs a worker, if there is one; finish the known failures before it."""
        while self._next is None and not self.stopping and (job := next(self._jobs, None)) is not None:
            if isinstance(job, Job):
                self._next = job
            else:
                yield self._failed(job.index, job.path, job.error.status, str(job.error))

    def _start(self, slot: WorkerSlot) -> None:
        slot.generation += 1
        generation = slot.generation

        def receive(message: FromWorker | None) -> None:
            self._messages.put((slot, generation, message))

        try:
            worker = self._transport.start(slot.plan, receive)
        except OSError as error:
            raise MachineError(f"No worker can be started ({error.strerror}): run the same command again.") from error
        slot.put(worker)
        options = self._options
        if slot.plan.device != self._asked_for:  # the options were meant for the GPU that this worker replaces
            options = structs.replace(options, backend="auto", precision="auto")
        trace = os.fsencode(self._trace.part()) if self._trace is not None else None
        worker.send(Start(options=options.to_json(), plan=slot.plan, name=slot.name, trace=trace, frames=self._frames))
        about = {"worker": slot.name, "device": slot.plan.device, "gpu": slot.plan.gpu}
        log.debug("%s starts", slot.name, extra=_event("worker_started", **about))

    def _patience(self) -> float | None:
        """Return how many seconds to wait for a message at most; None while no worker has anything to do."""
        deadlines = [slot.deadline(self._options.timeout) for slot in self._all_slots]
        known = [deadline for deadline in deadlines if deadline is not None]
        return min(LONGEST_GAP_SECONDS / 2, max(0.0, min(known) - self._clock())) if known else None

    def _kill_overdue(self) -> None:
        now, timeout = self._clock(), self._options.timeout
        for slot in self._all_slots:
            deadline = slot.deadline(timeout)
            if slot.worker is None or deadline is None or now < deadline:
                continue
            overdue = slot.overdue(timeout, now)
            hangs = now >= slot.moved + STALLED_SECONDS
            slot.killed = (
                f"nothing in it moved for {STALLED_SECONDS:.0f} seconds"
                if hangs
                else f"a file took longer than {timeout:g} {plural(timeout or 0, 'second')}"
            )
            self._overdue.update(overdue)
            slot.worker.kill()  # its end will be received

    def _handle(self, slot: WorkerSlot, message: FromWorker | None) -> Iterator[Finished]:
        """Act on a message; None is the end of the worker."""
        match message:
            case LogLine():
                logging.getLogger(message.logger).log(message.level, "%s", message.line)
            case Ready():
                self._make_ready(slot, message)
            case JobRequest():
                yield from self._answer(slot)
            case Finished():
                yield self._finished(slot, message)
            case Heartbeat():
                slot.beat(message, self._clock())
                self._sum_up(message)
            case Failed():
                if message.kind == OutputError.__name__:  # no other worker could write there, either
                    raise _error_of(message)
                slot.failure = message
                if slot.worker is not None:
                    slot.worker.kill()
            case None:
                yield from self._ended(slot)

    def _make_ready(self, slot: WorkerSlot, ready: Ready) -> None:
        slot.ready = True
        log.debug("%s is ready", slot.name, extra=_event("worker_ready", worker=slot.name))
        if self._was_ready:
            return
        self._was_ready = True
        self._detectors = ready.detectors
        needed = needed_for(ready.engines, [other.plan for other in self._slots])
        for other, is_needed in zip(self._slots, needed, strict=True):
            if is_needed and other is not slot:
                self._start(other)

    def _answer(self, slot: WorkerSlot) -> Iterator[Finished]:
        """Give an input to a decoder that asks for one; suspects go one by one to the worker for single files.

        No decoder is kept waiting: a worker that fails meanwhile could not end its threads, and say so.
        """
        if slot is self._alone:
            free = self._suspects and not slot.in_flight and not self.stopping
            job = self._suspects.popleft() if free else None
        else:
            yield from self._look_ahead()
            job, self._next = (None if self.stopping else self._next), None
        assert slot.worker is not None
        if job is None:
            slot.worker.send(NoMoreJobs())
            return
        slot.hand(job.index, self._clock())
        self._in_flight.setdefault(job.index, (job, time.monotonic()))
        slot.worker.send(job)
        path = os.fsdecode(job.path)
        event = "file_retried" if slot is self._alone else "file_started"
        log.debug("%s goes to %s", path, slot.name, extra=_event(event, file=path, worker=slot.name))

    def _finished(self, slot: WorkerSlot, finished: Finished) -> Finished:
        job, _ = self._in_flight.pop(finished.index)
        slot.in_flight.pop(finished.index, None)
        path = os.fsdecode(job.path)
        return self._done(job.index, path, tuple(structs.replace(result, path=path) for result in finished.results))

    def _done(self, index: int, path: str, results: tuple[VideoResult, ...]) -> Finished:
        self.shares.pop(index, None)
        self.progress.videos += 1
        for result in results:
            about = {
                "file": path,
                "model": result.model,
                "status": result.status,
                "score": None if result.score is None else float(f"{result.score:.6g}"),
                "label": result.label,
                "seconds": round(result.elapsed_seconds, 3),
            }
            log.debug("%s: %s", path, result.status, extra=_event("file_finished", **about))
            if result.status == "over_limit":
                log.debug("%s: %s", path, result.reason, extra=_event("limit", file=path, reason=result.reason))
        return Finished(index, results)

    def _ended(self, slot: WorkerSlot) -> Iterator[Finished]:
        """Handle the end of a worker: give up or retry the inputs that it had, and replace it."""
        assert slot.worker is not None
        death = slot.worker.end()
        lost = slot.clear()
        why = slot.killed or (slot.failure.text if slot.failure is not None else death)
        if not self._was_ready and not slot.killed:
            if self.stopping and not why:
                return
            raise (
                _error_of(slot.failure)
                if slot.failure is not None
                else MachineError(
                    f"Nothing could be scanned, as {death or 'its process ended'}: run `deepscan doctor`."
                )
            )
        if why or lost:
            why = why or "its process ended without a word"
            about = {"worker": slot.name, "reason": why}
            log.warning("%s has ended: %s", slot.name, why, extra=_event("worker_died", **about))
        for index in lost:
            if slot is self._alone or (index in self._overdue and len(lost) == 1):
                yield self._given_up(index, why)
            else:
                self._overdue.discard(index)
                self._suspects.append(self._in_flight[index][0])
        yield from self._replace(slot, why)

    def _replace(self, slot: WorkerSlot, why: str) -> Iterator[Finished]:
        """Start the workers that are needed after one has ended."""
        comes_up = slot.ready or not why
        if not comes_up and slot.plan == self._alone.plan:
            raise MachineError(f"No worker can be started any more ({why}): run the same command again.")
        if self.stopping:
            return
        if self._suspects and self._alone.worker is None:
            self._start(self._alone)
        yield from self._look_ahead()
        if self._next is None:
            return
        if slot is self._alone or not why:  # there are new inputs, but the other workers may have been told to leave
            if all(other.worker is None for other in self._slots):
                self._start(self._slots[FIRST])
            return
        if not comes_up:
            # The GPU is lost, or other programs have taken its memory.
            log.warning("%s goes on on the CPU.", slot.name)
            slot.plan = self._alone.plan
        self._start(slot)

    def _given_up(self, index: int, why: str) -> Finished:
        """Return the rows of a file whose process ended while it was alone in it."""
        job, begun = self._in_flight.pop(index)
        path = os.fsdecode(job.path)
        status: Status = "timeout" if index in self._overdue else "crashed"
        reason = f"Its process {'was ended' if status == 'timeout' else 'ended'}, with this file alone in it: {why}."
        elapsed = time.monotonic() - begun
        return self._failed(index, path, status, reason, elapsed=elapsed, content=_content_still_there(job))

    def _failed(
        self, index: int, path: str, status: Status, reason: str, *, elapsed: float = 0.0, content: str | None = None
    ) -> Finished:
        """Return the rows of an input that no worker could scan."""
        rows = tuple(
            VideoResult(
                index=index,
                row=row_number(index, number, len(self._detectors)),
                path=path,
                status=status,
                reason=reason,
                elapsed_seconds=elapsed,
                content=content,
                **structs.asdict(detector),
            )
            for number, detector in enumerate(self._detectors)
        )
        return self._done(index, path, rows)

    def _sum_up(self, heartbeat: Heartbeat) -> None:
        for index, share in heartbeat.shares.items():
            if index in self._in_flight:
                self.shares[index] = max(self.shares.get(index, 0.0), share)
        self.progress.frames = sum(each.frames for each in self.heartbeats())
        self.progress.faces = sum(each.faces for each in self.heartbeats())

    def heartbeats(self) -> list[Heartbeat]:
        """Return the last heartbeat of every worker, including those that have ended."""
        return [each for slot in self._all_slots for each in (*slot.past, slot.heartbeat) if each is not None]


def _event(name: str, **about: object) -> dict[str, Any]:
    """Return the `extra` that makes a log record one of the events that `--log` writes."""
    return {"event": {"event": name, **about}}


def _content_still_there(job: Job) -> str | None:
    """Return the content id from when the scan was planned, if the file has not changed since."""
    try:
        signature = signature_of(os.stat(job.path))
    except (OSError, ValueError):
        return None
    planned = job.planned
    return planned.content if planned is not None and planned.signature == signature else None


def _error_of(failure: Failed) -> DeepscanError:
    """Return the error that ended a worker, as if it had been raised here."""
    kind = getattr(errors, failure.kind, None)
    known = isinstance(kind, type) and issubclass(kind, DeepscanError)
    return kind(failure.text) if known and kind is not None else MachineError(failure.text)
