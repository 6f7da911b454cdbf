"""What a supervisor decides, with workers that do what the test says; see `test_worker_processes` for real ones."""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from deepscan.errors import MachineError, ModelError, UnreadableInput
from deepscan.options import ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.media.content import planned_content
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import Failed, Finished, Job, JobRequest, LogLine, NoMoreJobs, ToWorker
from deepscan.runtime.workers.supervisor import KnownFailure, Supervisor
from deepscan.runtime.workers.transport import Receive
from tests.footage import NO_FACE
from tests.runtime.watchdog import within_patience
from tests.runtime.workers.scripted import (
    DETECTOR,
    ONE,
    TWO_AT_ONCE,
    Scripted,
    ScriptedWorker,
    heartbeat,
    supervised,
)

ON_GPU = WorkerPlan("cuda", 0, nvdec=True, decoders=2, threads=2)
GONE = UnreadableInput("Nobody may read it.")


class Jumping:
    """A clock on which time passes whenever it is read."""

    def __init__(self, step_seconds: float) -> None:
        self.seconds, self.step_seconds = 0.0, step_seconds

    def __call__(self) -> float:
        self.seconds += self.step_seconds
        return self.seconds


def results_of(running: Supervisor) -> list[VideoResult]:
    return sorted((result for finished in running for result in finished.results), key=lambda result: result.row)


def statuses_of(running: Supervisor) -> list[str]:
    return [result.status for result in results_of(running)]


def test_every_job_comes_back_once_with_its_path() -> None:
    script = Scripted()
    running = supervised(7, [ONE, TWO_AT_ONCE], script)
    results = results_of(running)
    assert [result.path for result in results] == [f"{index}.mp4" for index in range(7)]
    assert [result.index for result in results] == list(range(7))
    assert running.progress.videos == 7
    assert {worker for _, worker in script.handed} == {0, 1}
    assert running.shares == {}


def test_jobs_are_taken_as_workers_ask_for_them_even_from_a_stream_without_end() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Job]:
        while True:
            taken.append(len(taken))
            yield Job(taken[-1], b"%d.mp4" % taken[-1])

    running = supervised(endless(), [ONE], Scripted())
    for finished in running:
        assert len(taken) <= finished.index + 2
        if finished.index == 20:
            running.stop()
    assert len(taken) <= 22


def test_jobs_may_be_added_while_others_are_scanned_and_when_all_workers_have_left() -> None:
    waiting = deque([Job(0, b"0.mp4")])

    class Growing(Iterator[Job]):
        def __next__(self) -> Job:
            if not waiting:
                raise StopIteration
            return waiting.popleft()

    script = Scripted(dies={2: 2})
    running = supervised(Growing(), [ONE], script)
    seen = []
    for finished in running:
        seen.append(finished.index)
        if finished.index < 4:
            waiting.append(Job(finished.index + 1, b"later.mp4"))
    assert seen == [0, 1, 2, 3, 4]
    assert running.progress.videos == 5


def test_what_is_known_to_fail_never_goes_to_a_worker() -> None:
    script = Scripted()
    jobs: list[Job | KnownFailure] = [
        KnownFailure(0, "a", GONE),
        Job(1, b"b"),
        KnownFailure(2, "c", GONE),
        KnownFailure(3, "d", GONE),
    ]
    results = results_of(supervised(jobs, [TWO_AT_ONCE], script))
    assert [result.status for result in results] == ["unreadable", "no_face", "unreadable", "unreadable"]
    assert [result.reason for result in results if result.index != 1] == ["Nobody may read it."] * 3
    assert [index for index, _ in script.handed] == [1]
    assert {(result.model, result.backend, result.precision) for result in results} == {
        (DETECTOR.model, DETECTOR.backend, DETECTOR.precision)
    }


@pytest.mark.parametrize("count", [0, 3])
def test_where_nothing_needs_a_worker_none_is_started(count: int) -> None:
    script = Scripted()
    running = supervised([KnownFailure(index, "a", GONE) for index in range(count)], [ONE, ONE], script)
    assert statuses_of(running) == ["unreadable"] * count
    assert running.progress.videos == count
    assert script.started == []


def test_all_results_of_a_file_come_together() -> None:
    other = structs.replace(DETECTOR, model="other")
    running = supervised(3, [ONE], Scripted(detectors=(DETECTOR, other), dies={1: 2}))
    finished = {each.index: [result.row for result in each.results] for each in running}
    assert finished == {0: [0, 1], 1: [2, 3], 2: [4, 5]}


@pytest.mark.parametrize("plan", [ONE, TWO_AT_ONCE])
def test_a_file_whose_worker_died_is_scanned_again_alone_and_costs_nothing(
    plan: WorkerPlan, caplog: pytest.LogCaptureFixture
) -> None:
    script = Scripted(dies={1: 1}, waits=[0])
    assert statuses_of(supervised(4, [plan], script)) == ["no_face"] * 4
    assert [index for index, _ in script.handed].count(1) == 2
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO] == [
        "worker 1 has ended: its process crashed (SIGSEGV)"
    ]


def test_a_file_that_kills_its_worker_twice_costs_one_row() -> None:
    script = Scripted(dies={1: 2}, waits=[0])
    results = results_of(supervised(4, [TWO_AT_ONCE, ONE], script))
    assert [result.status for result in results] == ["no_face", "crashed", "no_face", "no_face"]
    crashed = results[1]
    assert crashed.reason == "Its process ended, with this file alone in it: its process crashed (SIGSEGV)."
    assert (crashed.path, crashed.score, crashed.weights_sha256) == ("1.mp4", None, "weights")


class FailsWhileItAsks(ScriptedWorker):
    """Fails at every job, but only when none of its decoders waits for an answer: they could not be joined."""

    def _work(self, job: Job) -> None:
        self.script.handed.append((job.index, self.number))
        self.say(JobRequest())

    def send(self, message: ToWorker) -> None:
        if isinstance(message, NoMoreJobs) and self.running:
            self.say(Failed("MachineError", "it failed"))
            self._leave("")
        else:
            super().send(message)


def test_a_worker_that_fails_while_it_asks_for_the_next_file_can_say_so() -> None:
    class FailingTransport(Scripted):
        def start(self, plan: WorkerPlan, receive: Receive) -> ScriptedWorker:
            self.started.append(plan)
            return FailsWhileItAsks(self, len(self.started) - 1, plan, receive)

    # A worker that gets no answer would be ended by the watchdog only, as one in which nothing moves.
    results = within_patience(lambda: results_of(supervised(2, [ONE], FailingTransport())))
    assert [result.status for result in results] == ["crashed", "crashed"]
    assert all(result.reason.endswith("with this file alone in it: it failed.") for result in results)


def test_a_file_that_takes_too_long_is_tried_alone_and_then_costs_one_row() -> None:
    script = Scripted(hangs=[1])
    options = ScanOptions(timeout=100.0)
    results = results_of(supervised(3, [ONE], script, options=options, clock=Jumping(120.0)))
    assert [result.status for result in results] == ["no_face", "timeout", "no_face"]
    assert "was ended, with this file alone in it: a file took longer than 100 seconds" in results[1].reason


@pytest.mark.parametrize("timeout", [None, 10_000.0])
def test_a_worker_in_which_nothing_moves_is_ended(timeout: float | None) -> None:
    script = Scripted(hangs=[0])
    results = results_of(supervised(2, [ONE], script, options=ScanOptions(timeout=timeout), clock=Jumping(400.0)))
    assert [result.status for result in results] == ["timeout", "no_face"]
    assert "nothing in it moved for 300 seconds" in results[0].reason


def test_a_worker_in_which_anything_moves_is_not_ended() -> None:
    def slowly(worker: ScriptedWorker, index: int) -> None:
        for moved in range(60):
            worker.say(heartbeat(moved=float(moved), shares={index: moved / 60}))

    script = Scripted(before_finish=slowly)
    assert statuses_of(supervised(2, [ONE], script, clock=Jumping(10.0))) == ["no_face"] * 2
    assert len(script.started) == 1


def test_a_scan_that_is_stopped_finishes_what_it_has_begun() -> None:
    running = supervised(40, [TWO_AT_ONCE], Scripted())
    results = []
    for finished in running:
        results.append(finished)
        running.stop()
    assert 1 <= len(results) <= 3


def test_leaving_early_ends_all_workers() -> None:
    workers: list[ScriptedWorker] = []
    script = Scripted(before_finish=lambda worker, _: workers.append(worker))
    running = iter(supervised(9, [ONE, ONE], script))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert not any(worker.running for worker in workers)


def test_what_a_worker_cannot_do_is_raised_as_if_it_had_happened_here() -> None:
    script = Scripted(fails={0: Failed("ModelError", "It is no detector.")})
    with pytest.raises(ModelError, match=r"^It is no detector\.$"):
        list(supervised(2, [ONE, ONE], script))
    assert len(script.started) == 1
    script = Scripted(fails={0: Failed("ValueError", "odd")})
    with pytest.raises(MachineError, match="odd"):
        list(supervised(2, [ONE], script))


def test_a_worker_that_dies_before_it_is_ready_ends_the_scan() -> None:
    with pytest.raises(MachineError, match=r"Nothing could be scanned, as its process crashed \(SIGSEGV\)"):
        list(supervised(2, [ONE], Scripted(dead=[0])))


def test_the_cpu_takes_over_from_a_gpu_that_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    script = Scripted(dies={0: 1}, dead=[2])
    options = ScanOptions(backend="tensorrt", precision="fp16")
    assert statuses_of(supervised(4, [ON_GPU], script, options=options)) == ["no_face"] * 4
    assert [plan.device for plan in script.started] == ["cuda", "cpu", "cuda", "cpu"]
    assert [(each.backend, each.precision) for each in script.options] == [
        ("tensorrt", "fp16"),
        ("auto", "auto"),
        ("tensorrt", "fp16"),
        ("auto", "auto"),
    ]
    assert "worker 1 goes on on the CPU." in caplog.messages


def test_no_worker_that_can_be_started_ends_the_scan() -> None:
    with pytest.raises(MachineError, match="No worker can be started any more"):
        list(supervised(4, [ONE], Scripted(dies={0: 1, 1: 1}, dead=[1])))


def test_a_machine_that_can_start_no_process_is_one_sentence_and_ends_the_other_workers() -> None:
    class Full(Scripted):
        def start(self, plan: WorkerPlan, receive: Receive) -> ScriptedWorker:
            if workers:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            workers.append(super().start(plan, receive))
            return workers[0]

    workers: list[ScriptedWorker] = []
    with pytest.raises(MachineError, match=r"No worker can be started \(Resource temporarily unavailable\)"):
        list(supervised(4, [ONE, ONE], Full(hangs=[0])))
    assert not workers[0].running


def test_as_many_workers_start_as_the_gpu_has_engines_for() -> None:
    script = Scripted(engines=1)
    assert statuses_of(supervised(9, [ON_GPU] * 4, script)) == ["no_face"] * 9
    assert len(script.started) == 2


def test_a_late_message_of_a_dead_worker_is_not_taken_for_one_of_its_successor() -> None:
    first: list[ScriptedWorker] = []

    def late(worker: ScriptedWorker, index: int) -> None:
        first.append(worker)
        if index == 2:
            first[0].say(Finished(0, ()))

    assert statuses_of(supervised(4, [ONE], Scripted(dies={1: 1}, before_finish=late))) == ["no_face"] * 4


def test_what_a_worker_logs_is_logged_here_under_the_same_name(caplog: pytest.LogCaptureFixture) -> None:
    def talk(worker: ScriptedWorker, _: int) -> None:
        worker.say(LogLine("deepscan.runtime.backends", logging.INFO, "lite.onnx: 100 % fine"))

    with caplog.at_level(logging.INFO, "deepscan"):
        list(supervised(1, [ONE], Scripted(before_finish=talk)))
    assert caplog.record_tuples == [("deepscan.runtime.backends", logging.INFO, "lite.onnx: 100 % fine")]


def test_what_happens_is_logged_as_events(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "deepscan"):
        list(supervised([Job(0, b"a"), KnownFailure(1, "b", GONE)], [ONE], Scripted(dies={0: 1})))
    events = [record.event for record in caplog.records if hasattr(record, "event")]
    finished = {"model": "lite", "score": None, "label": None}
    assert events == [
        {"event": "worker_started", "worker": "worker 1", "device": "cpu", "gpu": None},
        {"event": "worker_ready", "worker": "worker 1"},
        {"event": "file_started", "file": "a", "worker": "worker 1"},
        {"event": "worker_died", "worker": "worker 1", "reason": "its process crashed (SIGSEGV)"},
        {"event": "worker_started", "worker": "worker for single files", "device": "cpu", "gpu": None},
        {"event": "file_finished", "file": "b", "status": "unreadable", "seconds": 0.0} | finished,
        {"event": "worker_ready", "worker": "worker for single files"},
        {"event": "file_retried", "file": "a", "worker": "worker for single files"},
        {"event": "file_finished", "file": "a", "status": "no_face", "seconds": 1.0} | finished,
    ]


def test_shares_and_counts_follow_the_heartbeats() -> None:
    def tell(worker: ScriptedWorker, index: int) -> None:
        worker.say(heartbeat(frames=10 * (index + 1), faces=index, shares={index: 0.5, 99: 0.5}))

    running = supervised(3, [ONE], Scripted(before_finish=tell))
    list(running)
    assert (running.progress.frames, running.progress.faces, running.shares) == (30, 2, {})


def test_a_crash_is_about_what_was_planned_only_if_the_file_is_still_that(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(NO_FACE.read_bytes())
    planned = planned_content(str(path), full=False)
    for change, content in (("", planned.content), ("written", None), ("gone", None)):
        if change == "written":
            path.write_bytes(b"other")
        elif change == "gone":
            path.unlink()
        job = Job(0, str(path).encode(), planned)
        (row,) = results_of(supervised([job], [ONE], Scripted(dies={0: 2})))
        assert (row.status, row.content) == ("crashed", content)
