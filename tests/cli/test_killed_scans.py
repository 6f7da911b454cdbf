"""Scans that are killed again and again, and go on each time until they are done."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.console import DEEPSCAN, ENVIRONMENT, rows_of
from tests.footage import flat, portrait, write_video

Row = dict[str, str]

FILES = 240
KILLS = 40
ROUNDS = 4
# From before the first worker is ready until long after it is.
EARLIEST_SECONDS, LATEST_SECONDS = 0.2, 2.0
COMMAND = "scan videos --frames 2 --jobs 2 --quiet --out results.csv --per-frame frames.csv".split()
# Of kills, those that hit the worker and not the scan itself.
SHARE_OF_WORKERS = 0.5


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short videos with and without a face, some damaged, some the same as others."""
    folder = tmp_path_factory.mktemp("killed") / "videos"
    folder.mkdir()
    kinds = [
        write_video(folder / "face.mp4", [portrait(320, 240)] * 4),
        write_video(folder / "none.mp4", [flat((90, 140, 60), 320, 240)] * 4),
    ]
    for number in range(FILES):
        kind = kinds[number % len(kinds)].read_bytes()
        name = folder / f"{number:03}.mp4"
        if number % 12 == 5:
            name.write_bytes(kind[: len(kind) // 3])
        elif number % 8 == 3:
            name.write_bytes(kind)
        else:
            name.write_bytes(kind + b"\0\0\0\x0efree" + number.to_bytes(6, "big"))  # another file, the same video
    return folder


def started(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([DEEPSCAN, *COMMAND], cwd=folder, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE)


def workers_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def without_times(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "elapsed_seconds"} for row in rows]


def finished_rows(folder: Path) -> list[Row]:
    process = started(folder)
    _, said = process.communicate()
    assert process.returncode == 1, said  # as some files are damaged
    return rows_of((folder / "results.csv").read_bytes())


@pytest.mark.slow  # forty scans that are killed
def test_killed_at_any_moment_a_scan_goes_on_and_gives_what_an_undisturbed_one_gives(
    videos: Path, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(videos, undisturbed / "videos")
    expected = without_times(finished_rows(undisturbed))
    assert len(expected) == FILES + 2
    assert {row["status"] for row in expected} == {"scored", "no_face", "unreadable"}
    chance = random.Random(0)
    killed_scans = killed_workers = 0
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        shutil.copytree(videos, folder / "videos")
        for _ in range(KILLS // ROUNDS):
            process = started(folder)
            time.sleep(chance.uniform(EARLIEST_SECONDS, LATEST_SECONDS))
            workers = workers_of(process.pid)
            if workers and chance.random() < SHARE_OF_WORKERS:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                killed_workers += 1
                time.sleep(chance.uniform(0, 1))
            process.kill()
            process.communicate()
            killed_scans += 1
        assert without_times(finished_rows(folder)) == expected
        assert (folder / "frames.csv").read_bytes() == (undisturbed / "frames.csv").read_bytes()
        for part in ("", "frames.csv.parts"):
            assert sorted(os.listdir(folder / part)) == sorted(os.listdir(undisturbed / part))
    assert killed_scans == KILLS
    assert killed_workers >= KILLS // 8  # on a busy machine many scans are killed before they have one
