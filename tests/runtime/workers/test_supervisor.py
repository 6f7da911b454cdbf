"""Scanning with several real processes, some of which are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from PIL import Image

from deepscan import scan
from deepscan.errors import MachineError, ModelError, UnreadableInput
from deepscan.options import ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.media.content import content_ids
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.trace_parts import Trace
from deepscan.runtime.workers import supervisor as supervisor_module
from deepscan.runtime.workers import worker_slots as worker_seats
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import Detector, Finished, FromWorker, Job, ToWorker
from deepscan.runtime.workers.supervisor import Note, Supervisor, unnoted
from deepscan.runtime.workers.transport import WorkerProcess
from deepscan.runtime.workers.worker_orders import WorkerOrder, started_worker
from tests.footage import ASTRONAUT, NO_FACE, TWO_FACES, portrait, write_video
from tests.runtime.tiny_detectors import tiny_frame_artifact
from tests.runtime.watchdog import children

OPTIONS = ScanOptions(sampling="quick", frames=3, mirror=False, backend="onnxruntime", precision="fp32")
ORDER = WorkerOrder(OPTIONS, "cpu")
ONE = WorkerPlan("cpu", None, nvdec=False, decoders=1, threads=1)
TWO_AT_ONCE = WorkerPlan("cpu", None, nvdec=False, decoders=2, threads=1)
VIDEOS = [ASTRONAUT, NO_FACE, TWO_FACES]

# Far longer than a worker needs for one of the files.
PATIENCE_OF_TESTS = 6.0

Start = Callable[[WorkerPlan, str, Callable[[FromWorker | None], None]], WorkerProcess]


def supervisor(
    paths: Sequence[Path],
    plans: Sequence[WorkerPlan],
    *,
    start: Start | None = None,
    order: WorkerOrder = ORDER,
    said: list[str] | None = None,
    timeout_seconds: float | None = None,
    note: Note = unnoted,
) -> Supervisor:
    jobs = [VideoJob(index, str(path)) for index, path in enumerate(paths)]
    report = (said if said is not None else []).append
    return Supervisor(
        jobs,
        plans,
        alone=ONE,
        start=start or partial(started_worker, order, None),
        report=report,
        timeout_seconds=timeout_seconds,
        note=note,
    )


def facts(results: Sequence[VideoResult]) -> list[VideoResult]:
    """All but what differs from run to run, in the order of the inputs."""
    return sorted((replace(each, elapsed_seconds=0.0) for each in results), key=lambda each: each.row)


class Deadly:
    """Starts workers that are killed as soon as they get a certain file.

    Args:
        index: of the file.
        times: how often; others are spared.
        deadly: the signal.
    """

    def __init__(self, index: int, times: int, deadly: signal.Signals = signal.SIGSEGV) -> None:
        self.index, self.left, self.deadly = index, times, deadly
        self.started: list[str] = []

    def __call__(self, plan: WorkerPlan, name: str, hear: Callable[[FromWorker | None], None]) -> WorkerProcess:
        process = started_worker(ORDER, None, plan, name, hear)
        self.started.append(name)
        tell = process.tell

        def told(message: ToWorker) -> None:
            if isinstance(message, Job) and message.index == self.index and self.left:
                self.left -= 1
                os.kill(process.pid, self.deadly)
            tell(message)

        process.tell = told  # type: ignore[method-assign]
        return process


@pytest.fixture(scope="module")
def expected() -> list[VideoResult]:
    return facts(list(scan(VIDEOS, frames=3, mirror=False, backend="onnxruntime", precision="fp32")))


def test_several_processes_give_what_one_gives(expected: list[VideoResult]) -> None:
    running = supervisor(VIDEOS, [ONE, ONE])
    assert facts(list(running)) == expected
    assert running.progress.videos == len(VIDEOS)
    assert running.progress.frames == sum(result.frames for result in expected)
    times = {each.name: each for each in running.stage_times()}
    assert list(times) == ["decode", "faces", "infer"]
    assert times["decode"].items == len(VIDEOS)
    assert times["faces"].threads == 2
    assert children() == []


def test_a_file_whose_worker_died_is_scanned_again_and_costs_nothing(expected: list[VideoResult]) -> None:
    said: list[str] = []
    deadly = Deadly(1, times=1)
    assert facts(list(supervisor(VIDEOS, [TWO_AT_ONCE], start=deadly, said=said))) == expected
    assert "worker for single files" in deadly.started
    assert said[0] == "worker 1 has ended: its process crashed (SIGSEGV)"


@pytest.mark.parametrize(
    ("deadly", "reason"), [(signal.SIGSEGV, "crashed (SIGSEGV)"), (signal.SIGKILL, "killed (SIGKILL), as happens when")]
)
def test_a_file_that_kills_its_worker_twice_costs_one_row(
    expected: list[VideoResult], deadly: signal.Signals, reason: str
) -> None:
    found = facts(list(supervisor(VIDEOS, [ONE, ONE], start=Deadly(1, times=2, deadly=deadly))))
    assert [found[0], found[2]] == [expected[0], expected[2]]
    crashed = found[1]
    assert (crashed.status, crashed.score, crashed.path) == ("crashed", None, str(NO_FACE))
    assert reason in crashed.reason
    assert "\n" not in crashed.reason
    assert crashed.weights_sha256 == expected[1].weights_sha256
    assert crashed.settings_sha256 == expected[1].settings_sha256
    assert children() == []


def test_two_detectors_give_their_rows_once_though_a_worker_dies_between_them(tmp_path: Path) -> None:
    order = WorkerOrder(structs.replace(OPTIONS, model=["lite", str(tiny_frame_artifact(tmp_path))]), "cpu")
    died: list[int] = []

    def start(plan: WorkerPlan, name: str, hear: Callable[[FromWorker | None], None]) -> WorkerProcess:
        def heard(message: FromWorker | None) -> None:
            if process.pid in died and message is not None:
                return  # lost with its process
            hear(message)
            if not died and isinstance(message, Finished) and message.result.index == 1:
                died.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)

        process = started_worker(order, None, plan, name, heard)
        return process

    results = list(supervisor(VIDEOS, [ONE], start=start, order=order))
    assert len(died) == 1
    assert sorted(result.row for result in results) == list(range(6))
    assert {result.status for result in results} == {"scored", "no_face"}


def test_files_wait_for_whoever_is_free() -> None:
    paths = [ASTRONAUT] * 1 + [NO_FACE] * 5
    running = supervisor(paths, [ONE, ONE])
    assert sorted(result.index for result in running) == list(range(6))


def test_leaving_early_ends_all_processes() -> None:
    running = iter(supervisor(VIDEOS, [ONE, ONE]))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert children() == []


def test_what_a_worker_cannot_do_is_raised_as_if_it_had_happened_here() -> None:
    order = WorkerOrder(ScanOptions(model="none.onnx"), "cpu")
    with pytest.raises(ModelError, match=r"none\.onnx does not exist"):
        list(supervisor(VIDEOS, [ONE, ONE], order=order))
    assert children() == []


def test_a_process_that_dies_before_it_is_ready_ends_the_scan() -> None:
    def start(plan: WorkerPlan, name: str, hear: Callable[[FromWorker | None], None]) -> WorkerProcess:
        process = started_worker(ORDER, None, plan, name, hear)
        os.kill(process.pid, signal.SIGKILL)
        return process

    with pytest.raises(MachineError, match=r"Nothing could be scanned, as its process was killed \(SIGKILL\)"):
        list(supervisor(VIDEOS, [ONE], start=start))


def test_a_name_that_is_no_text_comes_back_as_it_was(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    write_video(Path(os.fsdecode(path)), [portrait()] * 3)
    (result,) = supervisor([Path(os.fsdecode(path))], [ONE])
    assert os.fsencode(result.path) == path
    assert result.status == "scored"


def test_workers_write_one_trace(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")
    list(supervisor(VIDEOS, [ONE, ONE], start=partial(started_worker, ORDER, trace)))
    trace.finish()
    events = msgspec.json.decode((tmp_path / "trace.json").read_bytes())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"worker 1", "worker 2"}
    assert len({event["pid"] for event in events}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.json"]


def test_a_file_that_takes_too_long_is_tried_alone_and_then_costs_one_row(expected: list[VideoResult]) -> None:
    hanging = Deadly(1, times=2, deadly=signal.SIGSTOP)
    running = supervisor(VIDEOS, [TWO_AT_ONCE], start=hanging, timeout_seconds=PATIENCE_OF_TESTS)
    found = facts(list(running))
    assert [found[0], found[2]] == [expected[0], expected[2]]
    assert (found[1].status, found[1].score) == ("timeout", None)
    assert "longer than 6 seconds" in found[1].reason
    assert children() == []


def test_a_worker_that_stands_still_is_ended(expected: list[VideoResult], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_seats, "STALLED_SECONDS", PATIENCE_OF_TESTS)
    monkeypatch.setattr(supervisor_module, "STALLED_SECONDS", PATIENCE_OF_TESTS)
    said: list[str] = []
    hanging = Deadly(1, times=1, deadly=signal.SIGSTOP)
    assert facts(list(supervisor(VIDEOS, [TWO_AT_ONCE], start=hanging, said=said))) == expected
    assert said[0] == "worker 1 has ended: nothing in it moved for 6 seconds"


def test_a_scan_that_is_stopped_finishes_what_it_has_begun() -> None:
    running = supervisor([NO_FACE] * 40, [ONE])
    results = []
    for result in running:
        results.append(result)
        running.stop()
    assert 1 <= len(results) < 40
    assert {result.status for result in results} == {"no_face"}
    assert children() == []


def test_nothing_to_scan_starts_no_process() -> None:
    def start(plan: WorkerPlan, name: str, hear: Callable[[FromWorker | None], None]) -> WorkerProcess:
        raise AssertionError("no process is needed")

    assert list(supervisor([], [ONE], start=start)) == []


def test_what_is_known_of_a_file_beforehand_becomes_its_row() -> None:
    problem = UnreadableInput("Nobody may read it.")
    running = Supervisor(
        [VideoJob(0, "secret.mp4", problem), VideoJob(1, str(NO_FACE))],
        [ONE],
        alone=ONE,
        start=partial(started_worker, ORDER, None),
        report=print,
    )
    refused, scanned = sorted(running, key=lambda result: result.index)
    assert (refused.status, refused.reason, refused.path) == ("unreadable", "Nobody may read it.", "secret.mp4")
    assert scanned.status == "no_face"


def test_what_happens_is_noted() -> None:
    noted: list[tuple[str, str | None]] = []
    finished: dict[str, tuple[float | None, str | None]] = {}

    def note(event: str, **details: Any) -> None:
        noted.append((event, details.get("file") or details.get("worker")))
        if event == "file_finished":
            finished[details["file"]] = details["score"], details["label"]

    results = list(supervisor([NO_FACE, ASTRONAUT], [ONE], start=Deadly(1, times=1), note=note))
    scored = next(result for result in results if result.score is not None)
    assert finished == {str(NO_FACE): (None, None), str(ASTRONAUT): (pytest.approx(scored.score), "real")}
    assert ("worker_died", "worker 1") in noted
    assert ("file_retried", str(ASTRONAUT)) in noted
    assert noted.count(("file_finished", str(NO_FACE))) == 1
    assert noted.count(("file_finished", str(ASTRONAUT))) == 1
    assert noted.index(("file_started", str(ASTRONAUT))) < noted.index(("file_retried", str(ASTRONAUT)))


def test_a_process_that_may_take_little_memory_costs_the_file_that_needs_more(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("RGB", (12_000, 10_000)).save(large, compress_level=1)
    little = WorkerOrder(structs.replace(OPTIONS, memory=700 << 20), "cpu")
    running = supervisor([NO_FACE, large], [ONE], start=partial(started_worker, little, None))
    small, needy = sorted(running, key=index_of)
    assert small.status == "no_face"
    assert needy.status in ("crashed", "unreadable")
    enough = WorkerOrder(structs.replace(OPTIONS, memory=8 << 30), "cpu")
    (scanned,) = supervisor([large], [ONE], start=partial(started_worker, enough, None))
    assert scanned.status == "no_face"


def index_of(result: VideoResult) -> int:
    return result.index


def test_files_may_be_added_while_others_are_scanned() -> None:
    running = supervisor([NO_FACE], [ONE])
    added = iter([VideoJob(1, str(ASTRONAUT)), VideoJob(2, str(NO_FACE))])
    results = []
    for result in running:
        results.append(result)
        if (job := next(added, None)) is not None:
            running.add(job)
    assert [(result.index, result.status) for result in results] == [(0, "no_face"), (1, "scored"), (2, "no_face")]
    assert running.progress.videos == 3
    assert children() == []


def test_a_crash_is_about_what_was_planned_only_if_the_file_is_still_that(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(NO_FACE.read_bytes())
    contents = content_ids([str(path)], full=False, threads=1)
    for change, content in (("", contents.ids[0]), ("written", None), ("gone", None)):
        if change == "written":
            path.write_bytes(b"other")
        elif change == "gone":
            path.unlink()
        job = VideoJob(0, str(path), planned=contents.planned(0))
        running = Supervisor([job], [ONE], alone=ONE, start=Deadly(0, times=0), report=print)
        running._detectors = (Detector(model="m", backend="b", precision="p", weights_sha256="w", settings_sha256="s"),)
        (row,) = running._given_up(0, "it crashed")
        assert (row.status, row.content) == ("crashed", content)
