"""Scanning with several real processes, some of which are killed."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from PIL import Image

from deepscan import scan
from deepscan.errors import MachineError, ModelError
from deepscan.options import ScanOptions
from deepscan.results import VideoResult
from deepscan.runtime.pipeline.trace import Trace
from deepscan.runtime.workers import transport as transports
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import Job, Start, ToWorker
from deepscan.runtime.workers.supervisor import Supervisor
from deepscan.runtime.workers.transport import LocalTransport, Receive, Transport, WorkerProcess
from deepscan.runtime.workers.worker import SupervisorLink
from tests.footage import ASTRONAUT, NO_FACE, TWO_FACES, portrait, write_video
from tests.runtime.watchdog import children, within_patience
from tests.runtime.workers.scripted import DETECTOR, ONE, TWO_AT_ONCE

pytestmark = pytest.mark.usefixtures("own_children")
OPTIONS = ScanOptions(sampling="quick", frames=3, mirror=False, backend="onnxruntime", precision="fp32")
VIDEOS = [ASTRONAUT, NO_FACE, TWO_FACES]
# Longer than a worker needs for one of the files.
TIMEOUT_SECONDS = 6.0


def results_of(
    paths: Sequence[Path],
    plans: Sequence[WorkerPlan],
    *,
    options: ScanOptions = OPTIONS,
    transport: Transport | None = None,
    trace: Trace | None = None,
) -> list[VideoResult]:
    """Scan, and return all but what differs from run to run, in the order of the inputs."""
    jobs = iter([Job(index, os.fsencode(path)) for index, path in enumerate(paths)])
    running = Supervisor(
        jobs, plans, alone=ONE, options=options, detectors=[DETECTOR], transport=transport, trace=trace
    )
    return facts(result for finished in running for result in finished.results)


def facts(results: Iterable[VideoResult]) -> list[VideoResult]:
    return sorted((structs.replace(each, elapsed_seconds=0.0) for each in results), key=lambda each: each.row)


class Deadly(LocalTransport):
    """Starts workers that get a signal just before they get a certain file.

    Args:
        index: of the file; None for the first message.
        times: how often; others are spared.
        deadly: the signal.
    """

    def __init__(self, index: int | None, times: int, deadly: signal.Signals = signal.SIGSEGV) -> None:
        self.index, self.left, self.deadly = index, times, deadly

    def start(self, plan: WorkerPlan, receive: Receive) -> WorkerProcess:
        worker = super().start(plan, receive)
        assert isinstance(worker, WorkerProcess)
        send = worker.send

        def sent(message: ToWorker) -> None:
            first = isinstance(message, Start) and self.index is None
            if self.left and (first or (isinstance(message, Job) and message.index == self.index)):
                self.left -= 1
                os.kill(worker.pid, self.deadly)
            send(message)

        worker.send = sent  # type: ignore[method-assign]
        return worker


@pytest.fixture(scope="module")
def expected() -> list[VideoResult]:
    return facts(scan(VIDEOS, frames=3, mirror=False, backend="onnxruntime", precision="fp32"))


def test_several_processes_give_what_one_gives_and_write_one_trace(expected: list[VideoResult], tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")
    assert results_of(VIDEOS, [ONE, ONE], trace=trace) == expected
    assert children() == []
    trace.finish()
    events = msgspec.json.decode((tmp_path / "trace.json").read_bytes())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"worker 1", "worker 2"}
    assert len({event["pid"] for event in events}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trace.json"]


def test_a_file_whose_process_was_killed_is_scanned_again_and_costs_nothing(
    expected: list[VideoResult], caplog: pytest.LogCaptureFixture
) -> None:
    assert results_of(VIDEOS, [TWO_AT_ONCE], transport=Deadly(1, times=1)) == expected
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["worker 1 has ended: its process crashed (SIGSEGV)"]


def test_a_file_that_kills_its_process_twice_costs_one_row(expected: list[VideoResult]) -> None:
    found = results_of(VIDEOS, [ONE], transport=Deadly(1, times=2, deadly=signal.SIGKILL))
    assert [found[0], found[2]] == [expected[0], expected[2]]
    crashed = found[1]
    assert (crashed.status, crashed.score, crashed.path) == ("crashed", None, str(NO_FACE))
    assert "killed (SIGKILL), as happens when" in crashed.reason
    assert "\n" not in crashed.reason
    assert crashed.settings_sha256 == expected[1].settings_sha256
    assert children() == []


def test_a_process_that_stands_still_costs_one_row(expected: list[VideoResult]) -> None:
    options = structs.replace(OPTIONS, timeout=TIMEOUT_SECONDS)
    (hung,) = results_of([NO_FACE], [ONE], options=options, transport=Deadly(0, times=1, deadly=signal.SIGSTOP))
    assert (hung.status, hung.score) == ("timeout", None)
    assert "longer than 6 seconds" in hung.reason
    assert children() == []


def test_what_a_process_cannot_do_is_raised_here() -> None:
    with pytest.raises(ModelError, match=r"none\.onnx does not exist"):
        results_of(VIDEOS, [ONE], options=ScanOptions(model="none.onnx"))
    with pytest.raises(MachineError, match=r"Nothing could be scanned, as its process was killed \(SIGKILL\)"):
        results_of(VIDEOS, [ONE], transport=Deadly(None, times=1, deadly=signal.SIGKILL))
    assert children() == []


OTHER_VERSION = """
import struct, sys
reading, writing = (open(int(number), mode) for number, mode in zip(sys.argv[2:], ("rb", "wb")))
message = b"\\x81\\xa4type\\xa8Greeting"  # {"type": "Greeting"} in MessagePack
writing.write(struct.pack("<I", len(message)) + message)
writing.flush()
reading.read()
"""


def test_a_worker_that_cannot_be_understood_is_killed_and_ends_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deepscan_other.py").write_text(OTHER_VERSION)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(transports, "MODULE", "deepscan_other")
    with pytest.raises(MachineError, match=r"as a message from it could not be read \(ValidationError: .*Greeting"):
        within_patience(lambda: results_of(VIDEOS, [ONE]))
    assert children() == []


FAULTY_BACKEND = """
from pathlib import Path
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend

class Fault(Exception):
    "An error of a library's own type."

class FaultyBackend(OnnxRuntimeBackend):
    def __init__(self, artifact, **how):
        super().__init__(artifact, **how)
        self.name = "faulty-cpu"

    def logits(self, batch):
        left = Path(__file__).with_name("left")
        if count := int(left.read_text()):
            left.write_text(str(count - 1))
            raise Fault("error 901:\\n the capture was broken")
        return super().logits(batch)
"""


@pytest.mark.parametrize("faults", [1, 3])
def test_an_error_of_a_library_s_own_type_is_handled_like_any_other(
    faults: int,
    expected: list[VideoResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "faulty_backend.py").write_text(FAULTY_BACKEND)
    (tmp_path / "left").write_text(str(faults))
    record = tmp_path / "faulty_backend-1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-backend\nVersion: 1\n")
    (record / "entry_points.txt").write_text("[deepscan.backends]\nfaulty = faulty_backend:FaultyBackend\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    found = within_patience(
        lambda: results_of([ASTRONAUT, TWO_FACES], [TWO_AT_ONCE], options=structs.replace(OPTIONS, backend="faulty"))
    )
    said = "it failed in an unforeseen way (Fault: error 901: the capture was broken): please report this"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0] == f"worker 1 has ended: {said}"
    scores = [each.score for each in (expected[0], expected[2])]
    if faults == 1:
        assert [each.score for each in found] == scores
    else:  # the first worker, its successor or the one for single files, and that one again
        assert any(each.status == "crashed" and said in each.reason for each in found)
    assert all(each.status in ("scored", "crashed") for each in found)
    assert children() == []


def test_a_record_that_cannot_be_formatted_is_printed_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    sent = io.BytesIO()
    link = SupervisorLink(io.BytesIO(), sent)
    link.handle(logging.makeLogRecord({"name": "deepscan", "msg": "%d files", "args": ("some",)}))
    assert sent.getvalue() == b""
    assert "TypeError" in capsys.readouterr().err


def test_a_name_that_is_no_text_comes_back_as_it_was(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    write_video(Path(os.fsdecode(path)), [portrait()] * 3)
    (result,) = results_of([Path(os.fsdecode(path))], [ONE])
    assert os.fsencode(result.path) == path
    assert result.status == "scored"


def test_a_process_that_may_take_little_memory_costs_the_file_that_needs_more(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("RGB", (12_000, 10_000)).save(large, compress_level=1)
    small, needy = results_of([NO_FACE, large], [ONE], options=structs.replace(OPTIONS, memory=700 << 20))
    assert small.status == "no_face"
    assert needy.status in ("crashed", "unreadable")
    (scanned,) = results_of([large], [ONE], options=structs.replace(OPTIONS, memory=8 << 30))
    assert scanned.status == "no_face"


SCAN_AND_LOOK = """
import json, subprocess, sys
started = []
popen = subprocess.Popen.__init__
subprocess.Popen.__init__ = lambda self, *a, **k: (started.append(a[0]), popen(self, *a, **k))[1]
from deepscan import scan
statuses = [result.status for result in scan(sys.argv[2:], backend=sys.argv[1], frames=2)]
heavy = [name for name in ("av", "cv2", "onnx", "onnxruntime", "openvino", "PIL", "torch") if name in sys.modules]
print(json.dumps([statuses, heavy, len(started)]))
"""


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_the_process_that_supervises_imports_nothing_that_decodes_or_computes(backend: str, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    for paths, expected in (
        ([tmp_path / "missing.mp4", tmp_path / "empty.mp4"], [["unreadable", "unreadable"], [], 0]),
        ([NO_FACE], [["no_face"], [], 1]),
    ):
        command = [sys.executable, "-c", SCAN_AND_LOOK, backend, *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == expected
