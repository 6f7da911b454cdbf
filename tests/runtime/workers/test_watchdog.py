"""A slow worker and one that hangs: with a real supervisor, a worker in a thread, and a clock that tests turn."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from deepscan.options import Arithmetic, ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.backends.contract import Items
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.pyav_reader import PyAVReader
from deepscan.runtime.workers import worker
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import Heartbeat, Job
from deepscan.runtime.workers.supervisor import Supervisor
from deepscan.runtime.workers.worker_slots import LONGEST_GAP_SECONDS, STALLED_SECONDS, AwakeClock, WorkerSlot
from tests.footage import portrait, write_video
from tests.runtime.tiny_detectors import tiny_clip_artifact
from tests.runtime.watchdog import within_patience
from tests.runtime.worker_here import Killed, TransportHere

PLAN = WorkerPlan("cpu", None, nvdec=False, decoders=1, threads=1)
FRAMES = 8
# Each step of a slow worker takes so long: less than what counts as hanging, and two of them more.
STEP_SECONDS = 200.0
# For a standing to reach the supervisor, in real seconds; where none tells of a movement, this passes at every step.
HEARING_SECONDS = 0.5


class Turned:
    """The supervisor's clock; what is slow turns it, once the movement before was heard."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slots: list[WorkerSlot] = []
        self.killed = threading.Event()

    def __call__(self) -> float:
        return self.seconds

    def step(self) -> None:
        """Take a long time for something."""
        end = time.monotonic() + HEARING_SECONDS
        while time.monotonic() < end and all(slot.moved < self.seconds for slot in self.slots):
            time.sleep(0.001)
        self.seconds += STEP_SECONDS
        if self.killed.is_set():
            raise Killed

    def hang(self) -> None:
        """Never come back, unless killed."""
        while not self.killed.wait(0.02):
            self.seconds += STEP_SECONDS
        raise Killed


class Backend:
    """Scores everything alike, after something else was done."""

    name, max_batch = "slow-cpu", 1
    precision: Arithmetic = "fp32"

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before

    def logits(self, batch: Items) -> NDArray[np.float32]:
        self._before()
        return np.zeros(len(batch), dtype=np.float32)

    def close(self) -> None:
        pass


def nothing() -> None:
    pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Turned:
    turned = Turned()
    monkeypatch.setattr(worker, "limit_memory", lambda _: None)
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.002)
    monkeypatch.setattr(worker, "open_backend", lambda *_, **__: Backend(nothing))
    return turned


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "video.mp4", [portrait()] * FRAMES)


def scanned(clock: Turned, video: Path, options: ScanOptions, model: str = "lite") -> VideoResult:
    running = Supervisor(
        iter([Job(0, os.fsencode(video))]),
        [PLAN],
        alone=PLAN,
        options=structs.replace(options, model=model, backend="onnxruntime", precision="fp32"),
        detectors=[],
        transport=TransportHere(clock.killed),
        clock=clock,
    )
    clock.slots = running._all_slots
    (finished,) = within_patience(lambda: list(running))
    (result,) = finished.results
    return result


def slow_backend(monkeypatch: pytest.MonkeyPatch, clock: Turned) -> None:
    monkeypatch.setattr(worker, "open_backend", lambda *_, **__: Backend(clock.step))


def slow_face_detector(monkeypatch: pytest.MonkeyPatch, clock: Turned) -> None:
    detect = YuNet.detect

    def slowly(self: YuNet, pictures: NDArray[np.uint8]) -> list[Faces]:
        clock.step()
        return detect(self, pictures)

    monkeypatch.setattr(YuNet, "detect", slowly)


def slow_decoder(monkeypatch: pytest.MonkeyPatch, clock: Turned) -> None:
    """Also for frames that are decoded on the way to those that were asked for."""
    frame = PyAVReader._frame

    def slowly(self: PyAVReader, native: Any) -> Frame:
        clock.step()
        return frame(self, native)

    monkeypatch.setattr(PyAVReader, "_frame", slowly)


@pytest.mark.parametrize("slow", [slow_backend, slow_face_detector, slow_decoder])
@pytest.mark.parametrize(
    ("mode", "frames"), [("full", None), ("quick", FRAMES)], ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_slow_is_waited_for(
    clock: Turned,
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow: Callable[[pytest.MonkeyPatch, Turned], None],
    mode: Any,
    frames: int | None,
) -> None:
    slow(monkeypatch, clock)
    result = scanned(clock, video, ScanOptions(sampling=mode, frames=frames, detect_every=1, mirror=False))
    assert (result.status, result.reason) == ("scored", "")
    assert clock.seconds > STALLED_SECONDS


@pytest.mark.parametrize("slow", [slow_backend, slow_decoder])
def test_the_authors_way_may_take_long_in_its_second_pass_and_for_every_clip(
    clock: Turned,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow: Callable[[pytest.MonkeyPatch, Turned], None],
) -> None:
    slow(monkeypatch, clock)
    video = write_video(tmp_path / "longer.mp4", [portrait()] * (FRAMES + 5))
    result = scanned(clock, video, ScanOptions(sampling="paper"), str(tiny_clip_artifact(tmp_path)))
    assert (result.status, result.clips) == ("scored", 6)
    assert clock.seconds >= STEP_SECONDS * result.clips


def test_what_hangs_is_noticed_though_its_process_goes_on_to_say_that_it_is_there(
    clock: Turned, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "open_backend", lambda *_, **__: Backend(clock.hang))
    result = scanned(clock, video, ScanOptions(sampling="full", mirror=False))
    assert (result.status, result.score) == ("timeout", None)
    assert "nothing in it moved for 300 seconds" in result.reason


def test_a_worker_without_a_heartbeat_has_failed_and_does_not_only_seem_to_hang(
    clock: Turned, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait() -> None:
        clock.killed.wait()
        raise Killed

    def broken(*_: object) -> Heartbeat:
        raise Killed if clock.killed.is_set() else ZeroDivisionError("no heart")

    monkeypatch.setattr(worker, "open_backend", lambda *_, **__: Backend(wait))
    monkeypatch.setattr(worker, "_heartbeat", broken)
    result = scanned(clock, video, ScanOptions(sampling="full", mirror=False))
    assert (result.status, result.score) == ("crashed", None)
    assert "its heartbeat failed (ZeroDivisionError: no heart)" in result.reason


def heartbeat(moved: float) -> Heartbeat:
    return Heartbeat(frames=0, faces=0, videos=0, moved=moved, shares={}, times=[], by_nvdec=0, by_cpu={})


def test_a_worker_that_loads_or_measures_is_not_judged_and_one_with_files_by_what_moves_last() -> None:
    slot = WorkerSlot(PLAN, "worker 1")
    slot.worker = object()  # type: ignore[assignment]
    slot.beat(heartbeat(0.0), 0.0)
    assert slot.deadline(None) is None
    slot.hand(0, 1000.0)
    assert slot.deadline(None) == 1000.0 + STALLED_SECONDS
    slot.beat(heartbeat(0.0), 1100.0)
    assert slot.deadline(None) == 1000.0 + STALLED_SECONDS
    slot.beat(heartbeat(7.0), 1200.0)
    slot.beat(heartbeat(7.0), 1300.0)
    assert slot.deadline(None) == 1200.0 + STALLED_SECONDS
    assert slot.overdue(None, 1400.0) == []
    assert slot.overdue(None, 1200.0 + STALLED_SECONDS) == [0]


def test_the_time_that_a_supervisor_was_stopped_does_not_count() -> None:
    there = [100.0]
    clock = AwakeClock(lambda: there[0])
    assert clock() == 0.0
    for _ in range(3):
        there[0] += LONGEST_GAP_SECONDS / 2
        clock()
    assert clock() == 1.5 * LONGEST_GAP_SECONDS
    there[0] += 36_000.0
    assert clock() == 2.5 * LONGEST_GAP_SECONDS
