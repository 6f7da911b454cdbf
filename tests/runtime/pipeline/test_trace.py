from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deepscan.errors import OutputError
from deepscan.runtime.pipeline.pipeline import Pipeline, Source, Stage, StageTimes
from deepscan.runtime.pipeline.trace import BUFFER_BYTES, PipelineTrace, TraceWriter, joined
from tests.runtime.watchdog import wait_until, within_patience


@dataclass(frozen=True)
class Item:
    number: int
    nbytes: int = 10


def events_in(path: Path) -> list[dict[str, Any]]:
    """Return the events of a trace, read strictly."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    whole = json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)
    found: list[dict[str, Any]] = whole["traceEvents"]
    return found


def of_phase(events: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == phase]


def traced_run(path: Path, *, slow_source: float = 0.0, slow_stage: float = 0.0, jobs: int = 3) -> list[StageTimes]:
    def feed(job: str) -> Iterator[Item]:
        for number in range(4):
            time.sleep(slow_source)
            yield Item(number)

    def stage(items: Sequence[Item]) -> Iterator[Item]:
        time.sleep(slow_stage)
        yield from items

    writer = TraceWriter(path, pid=7, name="worker")
    pipeline = Pipeline(
        [f"video {number}" for number in range(jobs)],
        Source("decode", feed, threads=2, max_bytes=20, subject=str),
        [Stage("faces", stage, batch=2, max_bytes=1000)],
        observer=PipelineTrace(writer),
    )
    assert len(within_patience(lambda: list(pipeline.results()))) == 4 * jobs
    writer.close()
    return pipeline.times()


def test_every_call_is_an_event_on_the_track_of_its_thread(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    decode, faces = traced_run(path)
    events = events_in(path)
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert set(names.values()) <= {"deepscan-decode-0", "deepscan-decode-1", "deepscan-faces"}
    assert {event["pid"] for event in events} == {7}
    calls = [event for event in of_phase(events, "X") if event["cat"] == "busy"]
    for times in (decode, faces):
        own = [call for call in calls if call["name"] == times.name]
        assert sum(call["args"]["items"] for call in own) == times.items
        assert sum(call["args"]["busy_ms"] for call in own) == pytest.approx(1000 * times.busy_seconds, abs=5)
        assert all(times.name in names[call["tid"]] for call in own)
    paths = [call["args"].get("path") for call in calls]
    assert sorted(filter(None, paths)) == ["video 0", "video 1", "video 2"]
    assert all(call["name"] == "decode" for call in calls if "path" in call["args"])


def test_a_slow_source_shows_as_waiting_and_a_slow_stage_as_blocked(tmp_path: Path) -> None:
    decode, faces = traced_run(tmp_path / "source", slow_source=0.02)
    waits = [event for event in events_in(tmp_path / "source") if event.get("cat") == "waiting"]
    assert sum(event["dur"] for event in waits) / 1e6 == pytest.approx(faces.waiting_seconds, rel=0.1, abs=0.01)
    assert faces.busy_share < 0.5 < decode.busy_share
    decode, faces = traced_run(tmp_path / "stage", slow_stage=0.02)
    blocks = [event for event in events_in(tmp_path / "stage") if event.get("cat") == "blocked"]
    assert sum(event["dur"] for event in blocks) / 1e6 == pytest.approx(decode.blocked_seconds, rel=0.1, abs=0.01)
    assert decode.busy_share < 0.5 < faces.busy_share


def test_the_events_of_one_thread_lie_side_by_side_or_inside_each_other(tmp_path: Path) -> None:
    traced_run(tmp_path / "trace", slow_source=0.001, slow_stage=0.005)
    spans: dict[int, list[tuple[float, float]]] = {}
    for event in of_phase(events_in(tmp_path / "trace"), "X"):
        spans.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))
    assert len(spans) == 3
    slack = 50  # microseconds between the clock's readings
    for own in spans.values():
        for begin, end in own:
            for other_begin, other_end in own:
                apart = other_begin >= end - slack or other_end <= begin + slack
                inside = (begin - slack <= other_begin and other_end <= end + slack) or (
                    other_begin - slack <= begin and end <= other_end + slack
                )
                assert apart or inside


def test_the_queues_have_counters_in_bytes_and_items(tmp_path: Path) -> None:
    traced_run(tmp_path / "trace", slow_stage=0.02)
    counters = of_phase(events_in(tmp_path / "trace"), "C")
    assert {event["name"] for event in counters} == {
        f"{arrow}: {what}" for arrow in ("decode -> faces", "faces -> results") for what in ("bytes", "items")
    }
    held = [event["args"]["bytes"] for event in counters if event["name"] == "decode -> faces: bytes"]
    assert max(held) == 20
    assert all(0 <= value <= 20 for value in held)


def test_an_error_in_a_stage_leaves_a_trace_of_what_came_before(tmp_path: Path) -> None:
    def stage(items: Sequence[Item]) -> Iterator[Item]:
        raise ValueError("on purpose")

    writer = TraceWriter(tmp_path / "trace", pid=1, name="worker")
    source = Source("decode", lambda job: [Item(job)], threads=1, max_bytes=20)
    pipeline = Pipeline([0], source, [Stage("faces", stage, batch=2, max_bytes=100)], observer=PipelineTrace(writer))
    with pytest.raises(ValueError, match="on purpose"):
        within_patience(lambda: list(pipeline.results()))
    assert {event["name"] for event in of_phase(events_in(tmp_path / "trace"), "X")} >= {"decode"}
    writer.close()


@example(os.fsdecode(b"caf\xc3\xa9 \xff.mp4"))
@given(st.text(st.characters(exclude_categories=())))
def test_any_name_of_a_file_becomes_text(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("names") / "trace"
    writer = TraceWriter(path, pid=1, name="worker")
    writer.took("decode", "busy", 1.5, 0.25, path=name)
    writer.close()
    (event,) = of_phase(events_in(path), "X")
    kept = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in name)
    assert event["args"] == {"path": kept}
    assert (event["ts"], event["dur"]) == (1_500_000.0, 250_000.0)


def test_it_is_valid_at_any_time_and_holds_little_back(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    writer = TraceWriter(path, pid=1, name="worker")
    assert len(events_in(path)) == 1
    sizes = []
    for number in range(6000):
        writer.took("decode", "busy", number, 0.5)
        if number % 1000 == 0:
            sizes.append(len(events_in(path)))
    assert sizes[-1] > sizes[0]
    assert path.stat().st_size > 6000 * 50 - BUFFER_BYTES
    writer.close()
    writer.close()
    assert len(of_phase(events_in(path), "X")) == 6000


def test_a_killed_process_leaves_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    endless = (
        "import itertools, sys\n"
        "from deepscan.runtime.pipeline.trace import TraceWriter\n"
        "writer = TraceWriter(sys.argv[1], pid=1, name='worker')\n"
        "for number in itertools.count():\n"
        "    writer.took('decode', 'busy', number, 0.5)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", endless, str(path)])
    wait_until(lambda: path.exists() and path.stat().st_size > 3 * BUFFER_BYTES, "events")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(events_in(path)) > 1000


def test_threads_do_not_mix_their_events(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace", pid=1, name="worker")

    def write() -> None:
        for number in range(500):
            writer.took(threading.current_thread().name, "busy", number, 0.5)

    threads = [threading.Thread(target=write, name=f"thread {number}") for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    events = events_in(tmp_path / "trace")
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    calls = of_phase(events, "X")
    assert len(calls) == 2000
    assert all(names[call["tid"]] == call["name"] for call in calls)


def test_the_traces_of_several_processes_are_joined(tmp_path: Path) -> None:
    parts = [tmp_path / f"part{number}" for number in range(4)]
    for pid, part in enumerate(parts[:3]):
        writer = TraceWriter(part, pid=pid, name=f"worker {pid}")
        for number in range(pid):
            writer.took("decode", "busy", number, 0.5)
        writer.close()
    with parts[2].open("r+b") as torn:  # as if its machine had lost power
        torn.truncate(parts[2].stat().st_size - 20)
    joined(parts, tmp_path / "all.json")
    events = events_in(tmp_path / "all.json")
    assert [event["pid"] for event in of_phase(events, "X")] == [1, 2]
    assert [event["args"]["name"] for event in of_phase(events, "M") if event["name"] == "process_name"] == [
        "worker 0",
        "worker 1",
        "worker 2",
    ]
    assert os.listdir(tmp_path) == ["all.json"]


def test_joining_nothing_gives_an_empty_trace(tmp_path: Path) -> None:
    joined([tmp_path / "never"], tmp_path / "all.json")
    assert events_in(tmp_path / "all.json") == []


def test_an_older_trace_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path, video = tmp_path / "trace", tmp_path / "video.mp4"
    for count in (50, 1):
        writer = TraceWriter(path, pid=1, name="worker")
        for number in range(count):
            writer.took("decode", "busy", number, 0.5)
        writer.close()
    assert len(of_phase(events_in(path), "X")) == 1
    video.write_bytes(b"somebody's only copy")
    with pytest.raises(OutputError, match="not a trace"):
        TraceWriter(video, pid=1, name="worker")
    with pytest.raises(OutputError, match="not a trace"):
        joined([path], video)
    assert video.read_bytes() == b"somebody's only copy"
    assert path.exists()
    with pytest.raises(OutputError, match="cannot be written"):
        TraceWriter(tmp_path / "nowhere" / "trace", pid=1, name="worker")


def test_it_stops_at_its_largest_size_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    writer = TraceWriter(path, pid=1, name="worker", most_bytes=2 * BUFFER_BYTES)
    for number in range(20_000):
        writer.took("decode", "busy", number, 0.5)
    writer.close()
    assert path.stat().st_size < 2 * BUFFER_BYTES + 100
    assert writer.problem is not None
    assert "bytes" in writer.problem
    assert events_in(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_ends_the_trace_and_not_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    writer = TraceWriter(path, pid=1, name="worker")
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, writer._file)
    os.close(full)
    for number in range(10_000):
        writer.took("decode", "busy", number, 0.5)
    writer.close()
    assert writer.problem is not None
    assert "No space left" in writer.problem
    assert len(events_in(path)) == 1
