"""Workers without a process: they do what a test says, in the supervisor's own thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from deepscan.options import ScanOptions
from deepscan.results import Status, VideoResult
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import (
    Detector,
    Failed,
    Finished,
    FromWorker,
    Heartbeat,
    Job,
    JobRequest,
    NoMoreJobs,
    Ready,
    Start,
    ToWorker,
)
from deepscan.runtime.workers.supervisor import KnownFailure, Supervisor
from deepscan.runtime.workers.transport import Receive

ONE = WorkerPlan("cpu", None, nvdec=False, decoders=1, threads=1)
TWO_AT_ONCE = WorkerPlan("cpu", None, nvdec=False, decoders=2, threads=1)
DETECTOR = Detector(
    model="lite", backend="scripted-cpu", precision="fp32", weights_sha256="weights", settings_sha256="settings"
)


def heartbeat(moved: float = 0.0, **changes: object) -> Heartbeat:
    fields = {"frames": 0, "faces": 0, "videos": 0, "shares": {}, "times": [], "by_nvdec": 0, "by_cpu": {}}
    return Heartbeat(moved=moved, **(fields | changes))  # type: ignore[arg-type]


def result_of(index: int, *, row: int, status: Status = "no_face") -> VideoResult:
    return VideoResult(
        index=index,
        row=row,
        path="",
        status=status,
        model="lite",
        backend="scripted-cpu",
        precision="fp32",
        weights_sha256="weights",
        settings_sha256="settings",
        elapsed_seconds=1.0,
    )


@dataclass
class Scripted:
    """A transport whose workers finish every job at once, but for those that tests name.

    Attributes:
        dies: how many of the workers that get a job die of it, by the job's index.
        hangs: jobs of which nothing is ever heard.
        fails: what the n-th worker says that it cannot do, by n.
        dead: numbers of workers that die before they are ready.
        waits: jobs that are finished only when another one is handed out, as slow ones are.
        detectors: of every worker.
        engines: that the first GPU has.
        started: plan of each worker so far.
        options: of each worker so far.
        handed: index of each job that was handed out, with the number of the worker.
    """

    dies: dict[int, int] = field(default_factory=dict)
    hangs: Collection[int] = ()
    fails: dict[int, Failed] = field(default_factory=dict)
    dead: Collection[int] = ()
    waits: Collection[int] = ()
    detectors: tuple[Detector, ...] = (DETECTOR,)
    engines: int | None = None
    before_finish: Callable[[ScriptedWorker, int], None] = lambda *_: None
    started: list[WorkerPlan] = field(default_factory=list)
    options: list[ScanOptions] = field(default_factory=list)
    handed: list[tuple[int, int]] = field(default_factory=list)

    def start(self, plan: WorkerPlan, receive: Receive) -> ScriptedWorker:
        self.started.append(plan)
        return ScriptedWorker(self, len(self.started) - 1, plan, receive)


class ScriptedWorker:
    def __init__(self, script: Scripted, number: int, plan: WorkerPlan, receive: Receive) -> None:
        self.script, self.number, self.plan, self._receive = script, number, plan, receive
        self._asking, self._death, self._waiting = plan.decoders, "", list[Job]()
        self.running = True

    def say(self, message: FromWorker) -> None:
        self._receive(message)

    def send(self, message: ToWorker) -> None:
        if not self.running:
            return
        match message:
            case Start():
                self._start(message)
            case Job():
                self._work(message)
            case NoMoreJobs():
                self._asking -= 1
                self._finish_waiting()
        if self.running and not self._asking:
            self._leave("")

    def _start(self, start: Start) -> None:
        self.script.options.append(ScanOptions.from_json(start.options))
        if self.number in self.script.fails:
            self.say(self.script.fails[self.number])
            self._leave("its process ended with code 1: it said nothing")
        elif self.number in self.script.dead:
            self._leave("its process crashed (SIGSEGV)")
        else:
            self.say(Ready(self.script.detectors, self.script.engines))
            for _ in range(self.plan.decoders):
                self.say(JobRequest())

    def _work(self, job: Job) -> None:
        self.script.handed.append((job.index, self.number))
        if self.script.dies.get(job.index, 0):
            self.script.dies[job.index] -= 1
            self._leave("its process crashed (SIGSEGV)")
        elif job.index in self.script.waits and self._asking > 1:
            self._waiting.append(job)
        elif job.index not in self.script.hangs:
            self._finish_waiting()
            self._finish(job)

    def _finish_waiting(self) -> None:
        while self._waiting:
            self._finish(self._waiting.pop())

    def _finish(self, job: Job) -> None:
        self.script.before_finish(self, job.index)
        count = len(self.script.detectors)
        results = [result_of(job.index, row=job.index * count + number) for number in range(count)]
        self.say(Finished(job.index, tuple(results)))
        self.say(JobRequest())

    def _leave(self, death: str) -> None:
        self.running, self._death = False, death
        self._receive(None)

    def kill(self) -> None:
        if self.running:
            self._leave("")

    def end(self) -> str:
        return self._death


def supervised(
    jobs: int | Iterable[Job | KnownFailure],
    plans: Sequence[WorkerPlan],
    script: Scripted,
    *,
    options: ScanOptions | None = None,
    clock: Callable[[], float] | None = None,
) -> Supervisor:
    """Return a supervisor of scripted workers; of a number of jobs, job 3 has the path `3.mp4`."""
    listed: Iterator[Job | KnownFailure]
    listed = (Job(index, b"%d.mp4" % index) for index in range(jobs)) if isinstance(jobs, int) else iter(jobs)
    return Supervisor(
        listed,
        plans,
        alone=ONE,
        options=options or ScanOptions(backend="onnxruntime", precision="fp32"),
        detectors=[DETECTOR],
        transport=script,
        clock=clock,
    )
