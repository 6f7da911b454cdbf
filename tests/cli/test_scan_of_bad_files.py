from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
from PIL import Image

from deepscan.results import Status
from tests.cli.console import Ran, deepscan
from tests.footage import ASTRONAUT, SWAPPED

# What is scanned, in this order, and what the rows must say.
EXPECTED = {
    "missing.mp4": ("unreadable", "cannot be found"),
    "good.mp4": ("scored", ""),
    "empty.mp4": ("unreadable", "is empty"),
    "garbage.mp4": ("unreadable", "no video"),
    "text.mp4": ("unreadable", "no video"),
    "cut.mp4": ("scored", "damaged"),
    "beheaded.mp4": ("unreadable", ""),
    "sound.mp4": ("unsupported", "only videos"),
    "picture.png": ("no_face", ""),
    "cut.png": ("unreadable", "PNG picture cannot be decoded"),
    "pipe": ("unsupported", "pipe"),
    "fake.mp4": ("scored", ""),
}


def write_sound(path: Path) -> None:
    """Write a second of noise, and no picture."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 1024)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for _ in range(40):
            frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    video = ASTRONAUT.read_bytes()
    shutil.copyfile(ASTRONAUT, folder / "good.mp4")
    shutil.copyfile(SWAPPED, folder / "fake.mp4")
    (folder / "empty.mp4").touch()
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    (folder / "text.mp4").write_text("This is no video.\n" * 500)
    (folder / "cut.mp4").write_bytes(video[: len(video) // 2])
    (folder / "beheaded.mp4").write_bytes(video[len(video) // 2 :])
    write_sound(folder / "sound.mp4")
    Image.new("RGB", (64, 48), (9, 9, 200)).save(folder / "picture.png")
    (folder / "cut.png").write_bytes((folder / "picture.png").read_bytes()[:40])
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(scope="module")
def ran(folder: Path) -> Ran:
    return deepscan("scan", *EXPECTED, "--frames", "4", "--out", "-", "--verbose", cwd=folder)


def test_every_input_gets_one_row_in_order_with_a_status_of_the_design(ran: Ran) -> None:
    assert ran.code == 1
    assert [row["path"] for row in ran.rows] == list(EXPECTED)
    assert {row["status"] for row in ran.rows} <= set(get_args(Status))


@pytest.mark.parametrize("name", EXPECTED)
def test_the_row_of_a_file_says_what_is_wrong_with_it(ran: Ran, name: str) -> None:
    (row,) = (row for row in ran.rows if row["path"] == name)
    status, said = EXPECTED[name]
    assert row["status"] == status
    assert said in row["reason"]
    assert bool(row["reason"]) == (name not in ("good.mp4", "picture.png", "fake.mp4"))


def test_no_score_is_made_up_for_what_could_not_be_scored(ran: Ran) -> None:
    for row in ran.rows:
        filled = {name for name in ("score", "label", "peak_score", "peak_start_seconds") if row[name]}
        assert len(filled) == (4 if row["status"] == "scored" else 0), row
    scores = {row["path"]: float(row["score"]) for row in ran.rows if row["score"]}
    assert scores["good.mp4"] < 0.5 < scores["fake.mp4"]


def test_bad_neighbors_do_not_change_a_score(ran: Ran, folder: Path) -> None:
    alone = deepscan("scan", "fake.mp4", "--frames", "4", "--out", "-", "--quiet", cwd=folder)
    assert alone.code == 0
    assert [row["score"] for row in ran.rows if row["path"] == "fake.mp4"] == [alone.rows[0]["score"]]


def test_the_screen_names_the_first_failures_and_counts_the_rest(ran: Ran) -> None:
    closing = ran.err.partition("... and")
    assert closing[1], ran.err
    assert closing[2].startswith(" 3 more that could not be scanned.")
    assert "12 inputs: 1 no_face, 3 scored (1 fake, 0 uncertain, 2 real), 6 unreadable, 2 unsupported" in ran.err
    assert "Traceback" not in ran.err


def test_the_same_folder_scanned_as_a_whole_gives_the_same_rows(ran: Ran, folder: Path) -> None:
    whole = deepscan("scan", ".", "--frames", "4", "--out", "-", "--quiet", cwd=folder)
    expected = {row["path"]: (row["status"], row["score"], row["reason"]) for row in ran.rows}
    found = {row["path"].removeprefix("./"): (row["status"], row["score"], row["reason"]) for row in whole.rows}
    passed_over = ("missing.mp4", "picture.png", "cut.png", "pipe")
    assert found == {name: row for name, row in expected.items() if name not in passed_over}
