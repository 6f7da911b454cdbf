"""Real scans: no video's result depends on its neighbours, and leaving in the middle leaves nothing behind."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import deepscan
from deepscan.runtime.result_files import COLUMNS
from deepscan.runtime.results import Segment, TrackResult, VideoResult
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, example_frames, portrait, write_video
from tests.runtime.tiny_detectors import tiny_clip_artefact, tiny_frame_artefact
from tests.runtime.watchdog import PATIENCE_SECONDS, deepscan_threads, wait_until

EXAMPLES = [str(path.resolve()) for path in (ASTRONAUT, TWO_FACES, NO_FACE, PHONE, SWAPPED)]
Facts = tuple[str, float | None, Segment | None, int, int, int, tuple[TrackResult, ...]]


def facts_of(result: VideoResult) -> Facts:
    """All that a video's pixels decide, bit for bit."""
    return (
        result.status,
        result.score,
        result.peak,
        result.faces,
        result.clips,
        result.frames,
        result.details,
    )


def quick(paths: Sequence[str], *, jobs: int) -> dict[str, Facts]:
    return {result.path: facts_of(result) for result in deepscan.scan(paths, frames=3, jobs=jobs)}


@pytest.fixture(scope="module")
def alone() -> dict[str, Facts]:
    """Each example, scanned by itself."""
    found: dict[str, Facts] = {}
    for path in EXAMPLES:
        found |= quick([path], jobs=1)
    assert {Path(path).name: facts[0] for path, facts in found.items()} == {
        Path(path).name: "no_face" if Path(path) == NO_FACE else "scored" for path in EXAMPLES
    }
    return found


def test_a_detectors_result_does_not_depend_on_the_other_detectors(tmp_path: Path) -> None:
    # A face that is too small for lite, and large enough for the others.
    small = write_video(tmp_path / "small.mp4", [portrait(320, 180)] * 12)
    models = ["lite", str(tiny_clip_artefact(tmp_path)), str(tiny_frame_artefact(tmp_path))]
    together = sorted(deepscan.scan([TWO_FACES, small], model=models), key=lambda result: result.row)
    assert [(result.index, result.row) for result in together] == [(n // 3, n) for n in range(6)]
    for number, model in enumerate(models):
        by_itself = sorted(deepscan.scan([TWO_FACES, small], model=model), key=lambda result: result.row)
        assert [facts_of(result) for result in by_itself] == [facts_of(result) for result in together[number::3]]
        assert {result.settings_sha256 for result in by_itself} == {together[number].settings_sha256}
    assert [result.status for result in together[3:]] == ["no_face", "scored", "scored"]


@pytest.mark.parametrize("jobs", [1, 2, 5])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_a_videos_result_does_not_depend_on_its_neighbours(
    alone: dict[str, Facts], jobs: int, order: list[int]
) -> None:
    assert quick([EXAMPLES[place] for place in order], jobs=jobs) == alone


def test_exact_times_are_as_independent_as_key_frames() -> None:
    def paper(paths: Sequence[str], jobs: int) -> dict[str, Facts]:
        scan = deepscan.scan(paths, sampling="paper", frames=2, jobs=jobs)
        return {result.path: facts_of(result) for result in scan}

    pair = [str(TWO_FACES), str(SWAPPED)]
    assert paper(pair, 2) == paper(pair[:1], 1) | paper(pair[1:], 1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two short videos with faces in them."""
    folder = tmp_path_factory.mktemp("clips")
    options = {"preset": "ultrafast", "crf": "18"}
    return [
        str(write_video(folder / f"{number}.mp4", example_frames(path, 23), options=options))
        for number, path in enumerate((TWO_FACES, SWAPPED))
    ]


def test_in_full_scans_too_a_videos_result_does_not_depend_on_its_neighbours(clips: list[str]) -> None:
    def full(paths: Sequence[str], jobs: int) -> dict[str, Facts]:
        return {result.path: facts_of(result) for result in deepscan.scan(paths, jobs=jobs, mirror=False)}

    apart = full(clips[:1], 1) | full(clips[1:], 1)
    assert [(facts[0], facts[4], facts[5]) for facts in apart.values()] == [("scored", 46, 23), ("scored", 23, 23)]
    assert full(clips, 2) == full(clips[::-1], 1) == apart


def test_the_same_video_given_under_two_names_gets_the_same_result_twice(tmp_path: Path) -> None:
    link = tmp_path / "again.webm"
    link.symlink_to(TWO_FACES)
    found = quick([str(TWO_FACES), str(link)], jobs=2)
    assert found[str(TWO_FACES)] == found[str(link)]
    assert found[str(link)][0] == "scored"


def open_videos(process: int | str) -> set[str]:
    """Return which of the examples a process has open."""
    found = set()
    folder = f"/proc/{process}/fd"
    for number in os.listdir(folder):
        try:
            found.add(os.readlink(f"{folder}/{number}"))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found & set(EXAMPLES)


@pytest.mark.parametrize("jobs", [1, 2])
def test_leaving_a_scan_early_leaves_no_thread_and_no_open_file(jobs: int) -> None:
    missing = "missing.mp4"  # the one input that is done before any other, however busy the machine is
    for result in deepscan.scan([missing, *EXAMPLES], jobs=jobs):
        assert result.path == missing
        wait_until(lambda: bool(open_videos("self")), "another video is open")
        break
    assert deepscan_threads() == []
    assert open_videos("self") == set()


def test_an_error_of_the_caller_stops_the_scan() -> None:
    def consume(results: Iterator[VideoResult]) -> None:
        for _ in results:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume(iter(deepscan.scan([str(NO_FACE), str(PHONE), str(SWAPPED)], jobs=2)))
    assert deepscan_threads() == []
    assert open_videos("self") == set()


@pytest.fixture
def scanning(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A scan of all examples in a process of its own, writing into `tmp_path`."""
    order = [str(NO_FACE), str(PHONE), str(SWAPPED), str(TWO_FACES), str(ASTRONAUT)]
    program = "from deepscan.cli.main import main; main()"
    arguments = ["scan", *order, "--out", str(tmp_path / "results.csv"), "--verbose", "--jobs", "1"]
    with (
        open(tmp_path / "stderr.txt", "wb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stderr=errors,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "1000"},  # no line is wrapped
        ) as process,
    ):
        yield process
        process.kill()


@pytest.mark.parametrize("finished", [0, 1])
def test_an_interrupt_writes_what_is_finished_and_nothing_else(
    finished: int, scanning: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    log = tmp_path / "stderr.txt"
    wait_until(lambda: bool(open_videos(scanning.pid)), "the scan opens a video")
    wait_until(lambda: log.read_text().count(f"{NO_FACE}: no_face") >= finished, "the first result is shown")
    scanning.send_signal(signal.SIGINT)
    assert scanning.wait(PATIENCE_SECONDS) == 130, log.read_text()
    if not (tmp_path / "results.partial.csv").exists():
        assert not finished
        assert [path.name for path in tmp_path.iterdir()] == ["stderr.txt"]
        return
    with open(tmp_path / "results.partial.csv", newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert header == COLUMNS
    assert finished <= len(rows) < len(EXAMPLES)
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    for record in records:
        assert record["path"] in EXAMPLES
        assert (record["status"], record["frames"]) in {("no_face", "100"), ("scored", "100")}
        assert bool(record["score"]) == (record["status"] == "scored")
    if finished:
        assert records[0]["path"] == str(NO_FACE)
    assert len((tmp_path / "results.partial.jsonl").read_text().splitlines()) == len(rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.partial.csv",
        "results.partial.jsonl",
        "stderr.txt",
    ]
    assert "Traceback" not in log.read_text()
