"""Damaged and hostile videos, with `-m slow` hundreds: each costs one row. See `tests.mutations` for what is done.

They are scanned by another process, as a crash of FFmpeg would end this one; `mutated(seed)` gives a file again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

import pytest

from benchmarks.processes import memory_watched
from deepscan.results import Status
from tests.mutations import FRAMES, MUTATIONS, PAIRS, mutated, original

# Each mutation of each pair of codec and container, twice.
SEEDS: Final = 2 * len(MUTATIONS) * len(PAIRS)
# Of them some that have every mutation and every pair.
FEW: Final = [7 * number % SEEDS for number in range(60)]
IN_FULL: Final = 6  # every sixth is scanned in full, the others in two places
# All of them take a tenth on two idle processors.
PATIENCE_SECONDS: Final = 300.0
SAMPLE_SECONDS: Final = 0.05
# A process that scans small videos takes 290 MB: libraries and models. On top comes what videos pretend to be and may:
# two decoders with the twelve frames of a file, each of 16,000 x 255 pixels, 6 MB; and some more for good measure.
# A frame of 16,000 x 16,000 pixels, as one of the videos has, takes 400 MB, where FFmpeg decodes it to look at it.
MOST_BYTES: Final = 512 << 20

SCAN = """
import json, sys
import deepscan
for folder, sampling in ((sys.argv[1], "full"), (sys.argv[2], "quick")):
    running = deepscan.scan(folder, min_face=40, sampling=sampling, frames=2 if sampling == "quick" else None)
    for result in running:
        told = [result.path, result.status, result.reason, result.frames, result.score, result.width, result.height]
        print(json.dumps(told), flush=True)
"""


@dataclass(frozen=True)
class Row:
    """What a scan said of one file."""

    name: str
    status: str
    reason: str
    frames: int
    score: float | None
    width: int | None
    height: int | None


@dataclass(frozen=True)
class Ran:
    """Outcome of a process that scanned."""

    code: int
    names: list[str]
    rows: list[Row]
    said: str
    most_bytes: int


def scanned(full: Path, quick: Path) -> Ran:
    """Scan two folders in another process; it is killed when it takes far too long."""
    command = [sys.executable, "-X", "faulthandler", "-c", SCAN, str(full), str(quick)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        memory_watched(process.pid, SAMPLE_SECONDS) as samples,
    ):
        try:
            out, said = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, said = process.communicate()
            said += f"\nIt was killed after {PATIENCE_SECONDS} seconds."
    rows = [Row(os.path.basename(path), *rest) for path, *rest in map(json.loads, out.splitlines())]
    names = os.listdir(full) + os.listdir(quick)
    return Ran(process.returncode, names, rows, said, max(sample.largest_bytes for sample in samples))


@pytest.fixture(scope="module", params=[FEW, pytest.param(range(SEEDS), marks=pytest.mark.slow)], ids=len)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folders = [tmp_path_factory.mktemp("full"), tmp_path_factory.mktemp("quick")]
    for seed in request.param:
        name, data = mutated(seed)
        (folders[seed % IN_FULL != 0] / name).write_bytes(data)
    return scanned(*folders)


def test_the_same_seed_gives_the_same_video_and_others_give_others() -> None:
    videos = [mutated(seed) for seed in FEW]
    assert videos[::7] == [mutated(seed) for seed in FEW[::7]]
    assert len({data for _, data in videos}) > 0.95 * len(FEW)
    unharmed = {original(pair) for pair in PAIRS}  # zeros may meet zeros, and a muxer may refuse what is asked of it
    assert sum(data in unharmed for _, data in videos) < 0.05 * len(FEW)


def test_what_is_damaged_was_whole_before(tmp_path: Path) -> None:
    for number, pair in enumerate(PAIRS):
        (tmp_path / f"{number}.{pair.ending}").write_bytes(original(pair))
    whole = scanned(tmp_path, tmp_path)
    assert [row.status for row in whole.rows] == ["scored"] * 2 * len(PAIRS), whole.said
    assert {row.frames for row in whole.rows} == {FRAMES, 2}


def test_every_file_gets_exactly_one_row_and_nothing_hangs_or_crashes(ran: Ran) -> None:
    rows = Counter(row.name for row in ran.rows)
    missing = [name for name in ran.names if name not in rows]
    assert (ran.code, missing[:20]) == (0, []), f"{len(missing)} without a row; the process said: {ran.said[-3000:]}"
    assert rows == Counter(ran.names)


def test_rows_have_a_status_from_the_list_and_scores_only_where_there_is_one(ran: Ran) -> None:
    for row in ran.rows:
        assert row.status in get_args(Status), row
        assert (row.score is not None) == (row.status == "scored"), row
        assert row.score is None or 0.0 <= row.score <= 1.0, row
        assert row.reason or row.status in ("scored", "no_face"), row
    assert not [row.name for row in ran.rows if row.status in ("crashed", "timeout")]


def test_some_of_each_kind_are_told_apart(ran: Ran) -> None:
    statuses = Counter(row.status for row in ran.rows)
    assert statuses["scored"] > len(ran.names) / 3
    assert statuses["unreadable"] > len(ran.names) / 10
    assert statuses["no_face"] > 0


def test_memory_stays_bounded(ran: Ran) -> None:
    assert ran.most_bytes < MOST_BYTES
