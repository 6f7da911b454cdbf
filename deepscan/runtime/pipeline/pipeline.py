"""The pipeline: the only place that knows threads.

    sources x N  ->  stage  ->  stage  ->  results

Every arrow is a `BoundedQueue`. A source turns one job into messages; a stage turns a few messages into others. All of
them are ordinary functions that yield. The caller gets the results in its own thread, by iterating. When anything
raises, or the caller leaves, every queue is stopped, every thread joined, and the first error raised.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

from deepscan.runtime.pipeline.queues import BoundedQueue, Stopped

# What a thread waits for: input, or room for its output.
Wait: TypeAlias = Literal["waiting", "blocked"]


@dataclass(slots=True)
class Progress:
    """Progress of a scan: numbers of frames searched, faces found in them, and videos finished so far.

    `moved` is the time of the last progress of any kind, by `time.monotonic`; it tells a slow scan from one that hangs.
    """

    frames: int = 0
    faces: int = 0
    videos: int = 0
    moved: float = field(default=0.0, compare=False)

    def move(self) -> None:
        """Record that a frame was decoded or searched, a crop made, or a batch scored; call it from any thread."""
        self.moved = time.monotonic()


@dataclass(slots=True)
class StageTimes:
    """Times of a stage, in seconds summed over its threads.

    A stage that is mostly busy is the bottleneck. One that mostly waits for input comes after a slower one, and one
    that is mostly blocked on its output comes before a slower one.
    """

    name: str
    threads: int
    items: int = 0
    busy_seconds: float = 0.0
    waiting_seconds: float = 0.0
    blocked_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def busy_share(self) -> float:
        """Share of the time that the stage was busy, 0 to 1; 0 if it has not run."""
        accounted = self.busy_seconds + self.waiting_seconds + self.blocked_seconds
        return self.busy_seconds / accounted if accounted > 0.0 else 0.0


class PipelineObserver:
    """Hooks that the threads of a pipeline call for everything they do; these do nothing."""

    def waited(self, wait: Wait, seconds: float) -> None:
        """Handle the end of a wait of the calling thread."""

    def called(self, name: str, started: float, *, waited: float, blocked: float, items: int, subject: str) -> None:
        """Handle the end of a call of a stage's function in the calling thread.

        Args:
            name: name of the stage.
            started: `time.perf_counter()` at the beginning of the call.
            waited: seconds that the thread waited for the input before the call.
            blocked: seconds of the call during which there was no room for the output.
            items: number of messages passed to the function.
            subject: name of the source's job; otherwise empty.
        """

    def queue_changed(self, name: str, queue: BoundedQueue[Any]) -> None:
        """Handle that an item was put into a queue, or is about to be taken out."""

    def ended(self) -> None:
        """Handle the end of the pipeline."""


UNOBSERVED: Final = PipelineObserver()


@dataclass(frozen=True, slots=True)
class Source:
    """First stage: `function(job)` yields the messages of a job, in `threads` threads that share the jobs.

    `subject(job)` is the name of a job for observers, such as the path of its file.
    """

    name: str
    function: Callable[[Any], Iterable[Any]]
    threads: int
    max_bytes: int
    subject: Callable[[Any], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Stage:
    """Further stage: `function(messages)` takes up to `batch` waiting messages and yields others."""

    name: str
    function: Callable[[Sequence[Any]], Iterable[Any]]
    batch: int
    max_bytes: int


class Pipeline:
    """Runs jobs through a source and stages while the caller iterates over `results()`; an observer may watch.

    `max_bytes` of the source and of every stage bounds the queue after it.
    """

    def __init__(
        self,
        jobs: Iterable[Any],
        source: Source,
        stages: Sequence[Stage],
        *,
        observer: PipelineObserver = UNOBSERVED,
    ) -> None:
        self.source, self.stages = source, tuple(stages)
        self._jobs = iter(jobs)
        self._jobs_lock, self._lock = threading.Lock(), threading.Lock()
        self._error: BaseException | None = None
        first: BoundedQueue[Any] = BoundedQueue(max_bytes=source.max_bytes, producers=source.threads)
        self._queues = [first, *(BoundedQueue[Any](max_bytes=stage.max_bytes) for stage in stages)]
        self._times = [StageTimes(source.name, source.threads), *(StageTimes(stage.name, 1) for stage in stages)]
        names = [source.name, *(stage.name for stage in stages), "results"]
        self._arrows = [f"{before} -> {after}" for before, after in pairwise(names)]
        self._observer = observer
        self._threads = [
            *(self._thread(f"{source.name}-{number}", self._run_source, source) for number in range(source.threads)),
            *(self._thread(stage.name, self._run_stage, stage, number) for number, stage in enumerate(stages)),
        ]

    def results(self) -> Generator[Any, None, None]:
        """Start the threads, yield what the last stage yields, and stop the threads at the end, however it comes.

        Raises:
            BaseException: the first error of any thread.
        """
        try:
            for thread in self._threads:
                thread.start()
            while taken := self._queues[-1].get(1)[0]:
                yield from taken
        except Stopped:
            pass
        finally:
            self._stop()
        if self._error is not None:
            raise self._error

    def times(self) -> list[StageTimes]:
        """Return the times of each stage; those of a job's source are added when the job is done."""
        return self._times

    def _thread(self, name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(target, *arguments), name=f"deepscan-{name}", daemon=True)

    def _stop(self) -> None:
        for queue in self._queues:
            queue.stop()
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()
        self._observer.ended()

    def _guarded(self, target: Callable[..., None], *arguments: Any) -> None:
        try:
            target(*arguments)
        except Stopped:
            pass
        except BaseException as error:  # raised again in the caller's thread
            with self._lock:
                self._error = self._error or error
            for queue in self._queues:
                queue.stop()

    def _run_source(self, source: Source) -> None:
        while (job := self._next_job()) is not None:
            self._emit(source.function(job), 0, waited=0.0, items=1, subject=source.subject(job))
        self._queues[0].close()

    def _next_job(self) -> Any:
        with self._jobs_lock:
            return next(self._jobs, None)

    def _run_stage(self, stage: Stage, number: int) -> None:
        while True:
            self._observer.queue_changed(self._arrows[number], self._queues[number])
            messages, waited = self._queues[number].get(stage.batch)
            self._observer.waited("waiting", waited)
            if not messages:
                break
            self._emit(stage.function(messages), number + 1, waited=waited, items=len(messages), subject="")
        with self._lock:
            self._times[number + 1].waiting_seconds += waited
        self._queues[number + 1].close()

    def _emit(self, messages: Iterable[Any], output: int, *, waited: float, items: int, subject: str) -> None:
        """Put everything a generator yields into a queue, and close the generator if the pipeline stops."""
        started, cpu_started, blocked = time.perf_counter(), time.thread_time(), 0.0
        iterator = iter(messages)
        try:
            for message in iterator:
                stalled = self._queues[output].put(message)
                blocked += stalled
                self._observer.waited("blocked", stalled)
                self._observer.queue_changed(self._arrows[output], self._queues[output])
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            elapsed, cpu = time.perf_counter() - started, time.thread_time() - cpu_started
            times = self._times[output]
            with self._lock:
                times.items += items
                times.waiting_seconds += waited
                times.blocked_seconds += blocked
                times.busy_seconds += elapsed - blocked
                times.cpu_seconds += cpu
            self._observer.called(times.name, started, waited=waited, blocked=blocked, items=items, subject=subject)
