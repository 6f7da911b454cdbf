from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import OutputError
from deepscan.runtime.store.event_log import EventLog
from tests.runtime.watchdog import within_patience


def write(log: EventLog, event: str, **details: object) -> None:
    """Log an event as the supervisor does."""
    record = logging.LogRecord("deepscan", logging.DEBUG, "", 0, "", (), None)
    record.event = {"event": event} | details
    log.handle(record)


BYTES_OF_NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name)


def events_in(path: Path) -> list[dict[str, Any]]:
    """Return the events of a log, read strictly: ASCII, no NaN, a line break at the end of each."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = path.read_bytes().decode("ascii")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.split("\n")[:-1]]


def test_a_line_says_when_what_and_about_what(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "scan.log")
    write(log, "file_finished", stage="infer", worker="cpu", file="a.mp4", status="scored", seconds=0.25)
    write(log, "scan_finished", counts={"scored": 1})
    log.handle(logging.LogRecord("deepscan", logging.WARNING, "", 0, "no event", (), None))
    first, last = events_in(tmp_path / "scan.log")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert list(first.items()) == [
        ("event", "file_finished"),
        ("stage", "infer"),
        ("worker", "cpu"),
        ("file", "a.mp4"),
        ("status", "scored"),
        ("seconds", 0.25),
    ]
    assert set(last) == {"time", "event", "counts"}
    log.close()


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "scan.log")
    for count in range(1, 4):
        write(log, "file_started", file=f"{count}.mp4")
        assert len(events_in(tmp_path / "scan.log")) == count
    log.close()


@given(BYTES_OF_NAMES)
def test_the_bytes_of_any_name_can_be_read_back(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    path = tmp_path_factory.mktemp("log") / "scan.log"
    log = EventLog(path)
    write(log, "file_started", file=os.fsdecode(name))
    log.close()
    (event,) = events_in(path)
    assert os.fsencode(event["file"]) == name


def test_no_detail_can_spoil_the_log(tmp_path: Path) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError

    log = EventLog(tmp_path / "scan.log")
    write(log, "limit", path=tmp_path)
    write(log, "limit", seconds=float("nan"), most=float("inf"))
    write(log, "limit", odd={(1, 2): 3})
    path, numbers, odd = events_in(tmp_path / "scan.log")
    assert path["path"] == str(tmp_path)
    assert (numbers["seconds"], numbers["most"]) == ("nan", "inf")
    assert odd["odd"] == "{(1, 2): 3}"
    write(log, "limit", silent=Silent())
    assert log.problem is not None
    write(log, "scan_finished")
    assert len(events_in(tmp_path / "scan.log")) == 3
    log.close()


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "scan.log")

    def work(number: int) -> None:
        for count in range(200):
            write(log, "file_started", worker=str(number), file="x" * (count * 7))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        within_patience(thread.join)
    log.close()
    events = events_in(tmp_path / "scan.log")
    assert len(events) == 8 * 200
    for number in range(8):
        lengths = [len(event["file"]) for event in events if event["worker"] == str(number)]
        assert lengths == [count * 7 for count in range(200)]


def test_a_later_scan_goes_on_behind_the_first_and_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "scan.log"
    for _ in range(2):
        log = EventLog(path)
        write(log, "scan_started")
        log.close()
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 5)
    log = EventLog(path)
    write(log, "scan_finished")
    log.close()
    first, _torn, last = path.read_bytes().splitlines()
    assert json.loads(first)["event"] == "scan_started"
    assert json.loads(last)["event"] == "scan_finished"


def test_nothing_is_written_after_closing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "scan.log")
    log.close()
    log.close()
    write(log, "scan_finished")
    assert (tmp_path / "scan.log").read_bytes() == b""


@pytest.mark.parametrize("before", [b"\0\0\0\x18ftypmp42", b"path,status\n", b'{"path": "a"}\n', b"\n"])
def test_another_file_is_refused_and_kept(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(before)
    with pytest.raises(OutputError, match="is not a log"):
        EventLog(path)
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OutputError, match="is not a regular file"):
            within_patience(partial(EventLog, path))
    with pytest.raises(OutputError, match="cannot be written"):
        EventLog(tmp_path / "missing" / "scan.log")


FULL_DISK = """
import logging, resource, sys
from deepscan.runtime.store.event_log import EventLog
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = EventLog(sys.argv[1])
logging.getLogger("deepscan").addHandler(log)
logging.getLogger("deepscan").setLevel(logging.DEBUG)
for number in range(100):
    event = {"event": "file_started", "file": f"{number}.mp4"}
    logging.getLogger("deepscan").debug("", extra={"event": event})
print(log.problem)
"""


def test_a_full_disk_ends_the_log_behind_a_whole_line_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scan.log"
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert "cannot be written any more" in ran.stdout
    files = [event["file"] for event in events_in(path)]
    assert len(files) > 5
    assert files == [f"{number}.mp4" for number in range(len(files))]
    assert path.stat().st_size <= 1000
