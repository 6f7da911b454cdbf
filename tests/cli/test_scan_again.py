"""The same scan again: what is known is not scanned, and what changed is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deepscan import scan as scanned_by_api
from deepscan.cli import scan_run
from deepscan.cli.scan_display import ScanDisplay
from deepscan.cli.scan_options import OutputOptions
from deepscan.runtime.media.content import PlannedContent, planned_content
from deepscan.runtime.workers import transport
from tests.cli.console import DEEPSCAN, ENVIRONMENT, Ran, assert_one_line, deepscan, deepscan_process, rows_of
from tests.footage import ASTRONAUT, NO_FACE, flat, portrait, write_video
from tests.runtime.watchdog import wait_until

QUICK = ("--frames", "2")
Rows = list[dict[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, one of them twice, and a damaged one."""
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "face.mp4", [portrait(320, 240)] * 4)
    write_video(tmp_path / "v" / "none.mp4", [flat((0, 99, 0))] * 4)
    shutil.copyfile(tmp_path / "v" / "face.mp4", tmp_path / "v" / "same.mp4")
    (tmp_path / "v" / "bad.mp4").write_bytes(b"no video")
    return tmp_path


def scan(folder: Path, *arguments: str) -> tuple[Ran, Rows]:
    ran = deepscan("scan", "v", *QUICK, *arguments, cwd=folder)
    return ran, rows_of((folder / "results.csv").read_bytes())


def scanned(folder: Path, *arguments: str) -> list[str]:
    """Scan, and return the files that were really looked at."""
    log = folder / "log.jsonl"
    log.unlink(missing_ok=True)
    ran, _ = scan(folder, "--log", "log.jsonl", *arguments)
    assert ran.code in (0, 1), ran.err
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("scan_started", "scan_finished")
    return sorted(os.path.basename(event["file"]) for event in events if event["event"] == "file_started")


def test_files_that_hold_the_same_are_scanned_once_and_reported_for_each(folder: Path) -> None:
    assert scanned(folder) == ["bad.mp4", "face.mp4", "none.mp4"]
    rows = {os.path.basename(row["path"]): row for row in rows_of((folder / "results.csv").read_bytes())}
    assert list(rows) == ["bad.mp4", "face.mp4", "none.mp4", "same.mp4"]
    differing = {name for name in rows["face.mp4"] if rows["face.mp4"][name] != rows["same.mp4"][name]}
    assert differing == {"path"}


def test_a_second_run_scans_what_is_new_changed_or_asked_for(folder: Path) -> None:
    first = scan(folder)[1]
    assert scanned(folder) == []
    assert scan(folder)[1] == first
    os.rename(folder / "v" / "face.mp4", folder / "v" / "moved.mp4")
    assert scanned(folder) == []
    rows = scan(folder)[1]
    assert [os.path.basename(row["path"]) for row in rows] == [
        "face.mp4",  # where it was before: a row stays
        "bad.mp4",
        "moved.mp4",
        "none.mp4",
        "same.mp4",
    ]
    assert scan(folder, "--prune")[1] == rows[1:]
    write_video(folder / "v" / "none.mp4", [flat((9, 9, 9))] * 4)
    assert scanned(folder) == ["none.mp4"]
    assert scanned(folder, "--retry-failed") == ["bad.mp4"]
    assert scanned(folder, "--threshold", "0.5") == ["bad.mp4", "moved.mp4", "none.mp4"]
    assert scanned(folder, "--threshold", "0.5", "--hash", "full") == ["bad.mp4", "moved.mp4", "none.mp4"]
    assert scanned(folder, "--threshold", "0.5", "--hash", "full", "--fresh") == ["bad.mp4", "moved.mp4", "none.mp4"]
    assert (folder / "results.old.jsonl").exists()
    assert [os.path.basename(row["path"]) for row in scan(folder, "--threshold", "0.5", "--hash", "full")[1]] == [
        "bad.mp4",
        "moved.mp4",
        "none.mp4",
        "same.mp4",
    ]


def test_a_raised_limit_brings_back_what_was_over_it(folder: Path) -> None:
    rows = scan(folder, "--max-frames", "1")[1]
    assert [row["status"] for row in rows] == ["unreadable", "over_limit", "over_limit", "over_limit"]
    assert "--max-frames is 1" in rows[1]["reason"]
    assert scanned(folder, "--max-frames", "100") == ["face.mp4", "none.mp4"]


def test_what_would_be_scanned_is_shown_and_nothing_is_touched(folder: Path) -> None:
    before = deepscan("scan", "v", *QUICK, "--dry-run", cwd=folder)
    assert before.code == 0
    assert before.text.splitlines() == [
        "1\tscan\tv/bad.mp4",
        "2\tscan\tv/face.mp4",
        "3\tscan\tv/none.mp4",
        "4\tas 2\tv/same.mp4",
    ]
    assert "4 inputs: 3 to scan, 0 done, 1 with the same content as another." in before.err
    assert sorted(os.listdir(folder)) == ["v"]
    scan(folder)
    after = deepscan("scan", "v", *QUICK, "--dry-run", cwd=folder)
    assert [line.split("\t")[1] for line in after.text.splitlines()] == ["done"] * 4


def test_two_scans_do_not_write_the_same_results(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", [portrait(640, 360)] * 600, options={"preset": "ultrafast"})
    with subprocess.Popen(
        [DEEPSCAN, "scan", str(NO_FACE), str(long), "--jobs", "1", "--verbose"],
        cwd=tmp_path,
        env=os.environ | ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stderr is not None
        assert first.stderr.readline().startswith(f"{NO_FACE}: no_face")
        second = deepscan("scan", ASTRONAUT, *QUICK, cwd=tmp_path)
        first.send_signal(signal.SIGINT)
        first.stderr.readline()
        first.send_signal(signal.SIGINT)
        first.stderr.read()
    assert_one_line(second, 2)
    assert "another scan" in second.err
    wait_until(lambda: deepscan("scan", ASTRONAUT, *QUICK, cwd=tmp_path).code == 0, "the end of the first scan")


def test_a_trace_is_one_file_that_viewers_load(folder: Path) -> None:
    scan(folder, "--trace", "trace.json")
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {"worker 1"}
    assert {"decode", "faces", "infer"} <= {event["name"] for event in events}
    assert sorted(os.listdir(folder)) == ["results.csv", "results.jsonl", "trace.json", "v"]
    refused = deepscan("scan", "v", *QUICK, "--trace", "v/none.mp4", cwd=folder)
    assert_one_line(refused, 3)


def test_a_video_that_takes_too_long_costs_one_row(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", [portrait(640, 360)] * 1000, options={"preset": "ultrafast"})
    ran = deepscan_process("scan", long, "missing.mp4", "--jobs", "1", "--timeout", "0.5", cwd=tmp_path)
    assert ran.code == 1
    slow, other = rows_of((tmp_path / "results.csv").read_bytes())
    assert (slow["status"], slow["score"], other["status"]) == ("timeout", "", "unreadable")
    assert "longer than 0.5 seconds" in slow["reason"]
    assert "deepscan show" in ran.err
    assert "--status timeout" in ran.err


def test_scans_one_after_the_other_add_their_rows(tmp_path: Path) -> None:
    for name, color in (("a.mp4", (0, 99, 0)), ("b.mp4", (99, 0, 0))):
        write_video(tmp_path / name, [flat(color)] * 4)
        assert deepscan("scan", name, *QUICK, cwd=tmp_path).code == 0
    rows = rows_of((tmp_path / "results.csv").read_bytes())
    assert [row["path"] for row in rows] == ["a.mp4", "b.mp4"]
    dry = deepscan("scan", "b.mp4", *QUICK, "--prune", "--dry-run", cwd=tmp_path)
    pruned = deepscan("scan", "b.mp4", *QUICK, "--prune", cwd=tmp_path)
    for ran in (dry, pruned):
        assert "--prune leaves 1 row of other inputs or detectors out of results.csv" in ran.err
    assert rows_of((tmp_path / "results.csv").read_bytes()) == rows[1:]
    (tmp_path / "mine.csv").write_text("name,amount\n")
    for arguments in ((), ("--dry-run",)):
        refused = deepscan("scan", "b.mp4", *QUICK, "--out", "mine.csv", *arguments, cwd=tmp_path)
        assert_one_line(refused, 2)
        assert "mine.csv exists and was not written by deepscan" in refused.err
    assert (tmp_path / "mine.csv").read_text() == "name,amount\n"


def run_here(*paths: str, **options: Any) -> Rows:
    """Scan two frames of each into r.csv, from this process, and return its rows."""
    running = scanned_by_api(paths, frames=2, **options)
    display = ScanDisplay(running, quiet=True, verbose=False)
    scan_run.run_to_files(running, display, Path("r.csv"), OutputOptions(quiet=True))
    return rows_of(Path("r.csv").read_bytes())


@pytest.mark.usefixtures("workers_here")
def test_only_what_this_scan_may_take_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", [flat((0, 99, 0))] * 4)

    def plan(**options: Any) -> str:
        running = scanned_by_api("a.mp4", frames=2, **options)
        scan_run.show_plan(running, Path("r.csv"), OutputOptions(dry_run=True))
        return capsys.readouterr().out.split("\t")[1]

    onnxruntime: dict[str, Any] = {"backend": "onnxruntime", "precision": "fp32"}
    openvino: dict[str, Any] = {"backend": "openvino", "precision": "fp32"}
    assert [row["backend"] for row in run_here("a.mp4", **onnxruntime)] == ["onnxruntime-cpu"]
    assert [plan(**onnxruntime), plan(), plan(precision="fp32")] == ["done"] * 3
    assert [plan(**openvino), plan(backend="openvino"), plan(backend="torch")] == ["scan"] * 3
    assert [row["backend"] for row in run_here("a.mp4", **openvino)] == ["openvino-cpu"]
    assert [plan(**openvino), plan(**onnxruntime)] == ["done"] * 2
    started: list[str] = []
    monkeypatch.setattr(transport, "WorkerProcess", lambda *_, **__: started.append("worker"))
    assert [row["backend"] for row in run_here("a.mp4", **onnxruntime)] == ["onnxruntime-cpu"]  # known, and shown again
    assert started == []


@pytest.mark.usefixtures("workers_here")
def test_files_that_are_moved_or_written_to_while_others_are_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between planning and their turn one file is moved and another one grows; both have duplicates that stay."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("m.mp4", ASTRONAUT), ("m2.mp4", ASTRONAUT), ("g.avi", NO_FACE), ("g2.avi", NO_FACE)):
        shutil.copyfile(content, name)
    looked = scan_run._contents

    def then_changed(*arguments: Any, **keywords: Any) -> list[PlannedContent]:
        contents = looked(*arguments, **keywords)
        os.makedirs("done", exist_ok=True)
        if os.path.exists("m.mp4"):
            os.rename("m.mp4", "done/m.mp4")
            with open("g.avi", "ab") as file:
                file.write(b"JUNK\4\0\0\0more")
        return contents

    monkeypatch.setattr(scan_run, "_contents", then_changed)
    rows = {row["path"]: row for row in run_here("m.mp4", "m2.mp4", "g.avi", "g2.avi")}
    assert [row["status"] for row in rows.values()] == ["unreadable", "scored", "no_face", "no_face"]
    assert "cannot be opened" in rows["m.mp4"]["reason"]
    records = [json.loads(line) for line in Path("r.jsonl").read_bytes().splitlines()]
    contents = {record["path"]: record["content"] for record in records}
    assert contents == {
        "m.mp4": None,
        "m2.mp4": planned_content("m2.mp4", full=False).content,
        "g.avi": planned_content("g.avi", full=False).content,
        "g2.avi": planned_content("g2.avi", full=False).content,
    }
    assert len(set(contents.values())) == 4
    again = {row["path"]: row for row in run_here("done/m.mp4", "m2.mp4", "g.avi", "g2.avi")}
    assert list(again) == ["m.mp4", "done/m.mp4", "m2.mp4", "g.avi", "g2.avi"]
    assert again["done/m.mp4"] | {"path": "m2.mp4"} == again["m2.mp4"]
