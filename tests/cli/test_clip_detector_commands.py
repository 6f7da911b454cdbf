"""A clip detector from a checkpoint as its authors publish it to scans, through the real commands.

It is FTCN with one narrow stage, for crops of 32 x 32 pixels: what the commands do is the same, in a tenth of the time.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from deepscan.models.registry import BUILTIN
from tests.cli.console import assert_one_line, deepscan, rows_of
from tests.footage import ASTRONAUT, NO_FACE, TWO_FACES, portrait, write_video
from tests.runtime.graphs import small_ftcn

pytestmark = pytest.mark.slow  # exports in both forms, and measures which is faster

Store = dict[str, str]
WEIGHTS = Path(__file__).parents[2] / "weights"
SIZE = 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let `ftcn` be a small network; return a file with its weights, in the authors' layout, under another name."""
    detector = BUILTIN["ftcn"]
    small = dataclasses.replace(
        detector, spec=msgspec.structs.replace(detector.spec, size=SIZE), build=lambda: small_ftcn(frame_pool=2)
    )
    path = tmp_path_factory.mktemp("weights") / "downloaded (1).pth"
    torch.save(small_ftcn(frame_pool=2).state_dict(), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUILTIN, "ftcn", small)
        yield path


@pytest.fixture(scope="module")
def store(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    env = {"DEEPSCAN_HOME": str(tmp_path_factory.mktemp("home"))}
    ran = deepscan("weights", "add", checkpoint, env=env)
    assert ran.code == 0, ran.err
    assert "downloaded (1).pth: ftcn, sha256 " in ran.err
    assert "--model ftcn" in ran.err
    return env


def test_what_was_added_is_listed_and_shown(store: Store) -> None:
    listed = deepscan("weights", "list", env=store).text
    assert "downloaded (1).pth" in listed
    assert "ftcn" in listed
    assert "weights here      yes: downloaded (1).pth, sha256 " in deepscan("models", "ftcn", env=store).text
    assert "weights here      no" in deepscan("models", "recce", env=store).text


def test_the_store_is_private(store: Store) -> None:
    home = Path(store["DEEPSCAN_HOME"])
    (folder,) = (home / "weights").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert sorted(file.name for file in folder.iterdir()) == [
        "ftcn.manifest.json",
        "ftcn.onnx",
        "ftcn.parity.json",
        "ftcn.parity.md",
        "record.json",
        "weights.safetensors",
    ]


def test_one_scan_with_a_clip_detector_and_a_frame_detector(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "r.csv"
    ran = deepscan("scan", ASTRONAUT, NO_FACE, "--model", "ftcn,lite", "--clips", "2", "--out", out, env=store)
    assert ran.code == 0, ran.err
    rows = rows_of(out.read_bytes())
    assert [(Path(row["path"]).name, row["model"], row["status"]) for row in rows] == [
        (ASTRONAUT.name, "ftcn", "scored"),
        (ASTRONAUT.name, "lite", "scored"),
        (NO_FACE.name, "ftcn", "no_face"),
        (NO_FACE.name, "lite", "no_face"),
    ]
    assert [row["clips"] for row in rows] == ["2", "64", "0", "0"]
    assert {row["frames"] for row in rows} == {"64"}
    assert rows[0]["weights_sha256"] != rows[1]["weights_sha256"]
    assert 0.0 < float(rows[0]["score"]) < 1.0
    alone = deepscan("scan", ASTRONAUT, "--model", "ftcn", "--clips", "2", "--out", "-", env=store).rows
    assert [row["score"] for row in alone] == [rows[0]["score"]]


def test_what_was_added_can_be_exported_again(store: Store, tmp_path: Path) -> None:
    (folder,) = (Path(store["DEEPSCAN_HOME"]) / "weights").iterdir()
    form = json.loads((folder / "ftcn.manifest.json").read_text())["form"]
    ran = deepscan("export", "ftcn", "--form", form, "--out", tmp_path, env=store)
    assert ran.code == 0, ran.err
    assert f"Form: {form} (it was asked for)." in ran.err
    assert (tmp_path / "ftcn.onnx").read_bytes() == (folder / "ftcn.onnx").read_bytes()
    (folder / "weights.safetensors").rename(folder / "kept")
    (folder / "weights.safetensors").write_bytes((WEIGHTS / "lite2.safetensors").read_bytes())
    spoilt = deepscan("export", "ftcn", "--out", tmp_path, env=store)
    (folder / "kept").replace(folder / "weights.safetensors")
    assert_one_line(spoilt, 3)
    assert "or add its weights, again." in spoilt.err


def test_full_takes_every_frame_of_every_face_into_a_clip(store: Store) -> None:
    (row,) = deepscan("scan", TWO_FACES, "--model", "ftcn", "--out", "-", env=store).rows
    assert (row["tracks"], row["frames"]) == ("2", "98")
    assert int(row["clips"]) == 2 * 4  # 98 frames are three clips, and one that reaches back


def test_paper_takes_every_window(store: Store) -> None:
    arguments = ("scan", ASTRONAUT, "--model", "ftcn", "--sampling", "paper", "--frames", "35", "--out", "-")
    (row,) = deepscan(*arguments, env=store).rows
    assert (row["clips"], row["frames"], row["tracks"]) == ("4", "35", "1")


def test_short_videos_are_mirrored_and_shorter_ones_too_short(store: Store, tmp_path: Path) -> None:
    for count in (8, 9):
        write_video(tmp_path / f"{count}.mp4", [portrait()] * count)
    ran = deepscan("scan", tmp_path, "--model", "ftcn", "--out", "-", env=store)
    assert ran.code == 1
    eight, nine = ran.rows
    assert (eight["status"], eight["score"], eight["label"]) == ("too_short", "", "")
    assert eight["reason"] == "faces seen for up to 8 frames in a row were not scored, ftcn needs 9"
    assert (nine["status"], nine["clips"]) == ("scored", "1")


def test_random_weights_do_not_take_the_place_of_trained_ones(store: Store, tmp_path: Path) -> None:
    env = {"DEEPSCAN_HOME": str(tmp_path / "copy")}
    shutil.copytree(store["DEEPSCAN_HOME"], env["DEEPSCAN_HOME"])
    assert deepscan("weights", "random", "ftcn", env=env).code == 0
    listed = deepscan("weights", "list", env=env).text.splitlines()
    assert ["(untrained)" in line for line in listed] == [False, True]
    assert "yes: downloaded (1).pth" in deepscan("models", "ftcn", env=env).text
    digest = listed[1].split("@")[1][:12]
    arguments = ("scan", ASTRONAUT, "--model", f"ftcn,ftcn@{digest}", "--clips", "1", "--out", "-")
    trained, random = deepscan(*arguments, env=env).rows
    assert trained["model"] == f"ftcn@{trained['weights_sha256'][:12]}"
    assert random["model"] == f"ftcn@{digest} (untrained)"


def test_weights_are_removed_by_name(store: Store, tmp_path: Path) -> None:
    env = {"DEEPSCAN_HOME": str(tmp_path / "copy")}
    shutil.copytree(store["DEEPSCAN_HOME"], env["DEEPSCAN_HOME"])
    assert_one_line(deepscan("weights", "remove", "recce", env=env), 2)
    ran = deepscan("weights", "remove", "ftcn", env=env)
    assert ran.code == 0
    assert "Removed ftcn@" in ran.err
    assert "No weights were added" in deepscan("weights", "list", env=env).text


def test_the_form_may_be_chosen_when_weights_are_added(checkpoint: Path, tmp_path: Path) -> None:
    ran = deepscan("weights", "add", checkpoint, "--form", "3d", env={"DEEPSCAN_HOME": str(tmp_path)})
    assert ran.code == 0, ran.err
    (manifest,) = tmp_path.glob("weights/ftcn-*/ftcn.manifest.json")
    record = json.loads(manifest.read_text())
    assert (record["form"], record["form_reason"]) == ("3d", "it was asked for")
