"""`--per-frame`: scores of every crop and clip, that go on with the journal and agree with the rows."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from deepscan import scan
from deepscan.errors import OutputError, UsageError
from deepscan.results import FRAME_COLUMNS
from deepscan.runtime.artifacts.artifacts import read_manifest
from deepscan.runtime.pipeline.frame_parts import FrameRecorder
from deepscan.runtime.store import frame_files
from deepscan.runtime.store.frame_files import FrameStore, parts_folder
from deepscan.runtime.store.result_files import ResultFiles
from tests.cli.console import Ran, deepscan
from tests.footage import ASTRONAUT, NO_FACE, TWO_FACES, portrait, write_video
from tests.runtime.tiny_detectors import tiny_clip_artifact, tiny_frame_artifact

Frame = dict[str, Any]


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("detectors")
    return {"tiny-frame": str(tiny_frame_artifact(folder)), "tiny-clip": str(tiny_clip_artifact(folder))}


def frames_of(path: Path) -> list[Frame]:
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    read: dict[str, Callable[[str], Any]] = {
        "path": str,
        "model": str,
        "found": json.loads,
        "track": int,
        "frame": int,
        "frames": int,
    }
    return [{name: read.get(name, float)(cell) if cell else None for name, cell in row.items()} for row in rows]


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]


def scanned(folder: Path, *arguments: str | Path, frames: str = "f.csv") -> Ran:
    return deepscan("scan", *arguments, "--out", "r.csv", "--per-frame", frames, cwd=folder)


def assert_agrees(record: dict[str, Any], frames: list[Frame], manifest: str) -> None:
    """Compare a row and its tracks with what its frames give."""
    spec = read_manifest(manifest).spec
    own = [frame for frame in frames if (frame["path"], frame["model"]) == (record["path"], record["model"])]
    assert len(own) == record["clips"] == sum(track["clips"] for track in record["track_details"])
    for track in record["track_details"]:
        rows = [row for row in own if row["track"] == track["track"]]
        if spec.pooling == "logit":
            score = spec.calibration.score(statistics.fmean(row["logit"] for row in rows))
        else:
            score = statistics.fmean(row["score"] for row in rows)
        assert track["score"] == pytest.approx(score, rel=1e-5)
        assert track["start_seconds"] == pytest.approx(rows[0]["start_seconds"], abs=6e-4)
        assert track["end_seconds"] == pytest.approx(rows[-1]["end_seconds"], abs=6e-4)
    for row in own:
        assert row["score"] == pytest.approx(spec.calibration.score(row["logit"]))
        assert row["start_seconds"] <= row["pts_seconds"] <= row["end_seconds"]
        assert row["x"] < row["nose_x"] < row["x"] + row["width"]
        assert row["y"] < row["right_eye_y"] < row["right_mouth_y"] < row["y"] + row["height"]


def test_frames_of_several_detectors_agree_with_the_rows_in_both_formats(
    detectors: dict[str, str], tmp_path: Path
) -> None:
    models = ",".join(detectors.values())
    ran = scanned(tmp_path, TWO_FACES, NO_FACE, "--model", models, frames="f.parquet")
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[-1] == "Written: r.csv, r.jsonl and f.parquet"
    frames = frames_of(tmp_path / "f.parquet")
    assert tuple(frames[0]) == FRAME_COLUMNS
    scored = [record for record in records_of(tmp_path) if record["status"] == "scored"]
    assert len(scored) == 2
    for record in scored:
        assert_agrees(record, frames, detectors[record["model"]])
    order = list(dict.fromkeys((frame["path"], frame["model"]) for frame in frames))
    assert order == [(str(TWO_FACES), model) for model in detectors]
    crops = [frame for frame in frames if frame["model"] == "tiny-frame"]
    assert {frame["found"] for frame in crops} == {True, False}  # every fifth frame is searched
    assert {frame["frames"] for frame in crops} == {1}
    assert max(frame["frame"] for frame in crops) == scored[0]["frames"] - 1
    clips = [frame for frame in frames if frame["model"] == "tiny-clip"]
    assert {frame["frames"] for frame in clips} == {8}
    assert all(frame["start_seconds"] < frame["pts_seconds"] < frame["end_seconds"] for frame in clips)
    os.rename(tmp_path / "f.parquet.parts", tmp_path / "f.csv.parts")
    assert scanned(tmp_path, TWO_FACES, NO_FACE, "--model", models).code == 0
    assert len(records_of(tmp_path)) == 4  # nothing was scanned again
    for one, other in zip(frames_of(tmp_path / "f.csv"), frames, strict=True):
        numbers = [[value for value in frame.values() if not isinstance(value, str)] for frame in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6)
        assert (one["path"], one["model"]) == (other["path"], other["model"])


def test_paper_sampling_has_a_row_for_each_of_the_overlapping_clips(detectors: dict[str, str], tmp_path: Path) -> None:
    ran = scanned(tmp_path, ASTRONAUT, "--model", detectors["tiny-clip"], "--sampling", "paper")
    assert ran.code == 0, ran.err
    (record,) = records_of(tmp_path)
    assert record["clips"] > 3
    assert_agrees(record, frames_of(tmp_path / "f.csv"), detectors["tiny-clip"])


def test_pictures_and_whole_faces_have_rows(detectors: dict[str, str], tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(portrait(320, 240)).save(tmp_path / "=face.png")
    arguments = ("=face.png", "--model", detectors["tiny-frame"], "--face-detector", "none")
    assert scanned(tmp_path, *arguments).code == 0
    (frame,) = frames_of(tmp_path / "f.csv")
    assert [frame[name] for name in ("path", "x", "y", "width", "height")] == ["'=face.png", 0, 0, 320, 240]
    assert (frame["nose_x"], frame["found"], frame["frame"], frame["pts_seconds"]) == (None, True, 0, 0)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", [portrait(320, 240)] * (4 + number))
    return tmp_path


OPTIONS = ("videos", "--frames", "2")


def begun(folder: Path) -> int:
    return len((folder / "r.jsonl").read_text().splitlines())


def test_what_is_finished_is_not_scanned_again_unless_its_frames_are_missing(videos: Path) -> None:
    assert deepscan("scan", *OPTIONS, "--out", "r.csv", cwd=videos).code == 0
    assert scanned(videos, *OPTIONS).code == 0
    assert begun(videos) == 6  # the first scan kept no frames
    whole = (videos / "f.csv").read_bytes()
    assert len(frames_of(videos / "f.csv")) == 6
    (videos / "f.csv").unlink()
    assert scanned(videos, *OPTIONS).code == 0
    assert begun(videos) == 6
    assert (videos / "f.csv").read_bytes() == whole
    first, second, _ = sorted((videos / "f.csv.parts").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    planned = deepscan("scan", *OPTIONS, "--out", "r.csv", "--per-frame", "f.csv", "--dry-run", cwd=videos)
    assert "2 to scan, 1 done" in planned.err
    assert scanned(videos, *OPTIONS).code == 0
    assert begun(videos) == 8
    assert (videos / "f.csv").read_bytes() == whole
    assert {path.suffix for path in (videos / "f.csv.parts").iterdir()} == {".frames"}


def test_the_file_goes_with_the_rows_of_the_csv(videos: Path) -> None:
    (videos / "videos" / "copy.mp4").write_bytes((videos / "videos" / "1.mp4").read_bytes())
    assert deepscan("scan", "videos/0.mp4", "--frames", "2", "--out", "r.csv", cwd=videos).code == 0
    ran = scanned(videos, "videos/1.mp4", "videos/copy.mp4", "--frames", "2")
    assert "1 row of earlier scans without --per-frame is not in f.csv." in ran.err
    frames = frames_of(videos / "f.csv")
    assert [frame["path"] for frame in frames] == ["videos/1.mp4"] * 2 + ["videos/copy.mp4"] * 2
    assert [frame["logit"] for frame in frames[:2]] == [frame["logit"] for frame in frames[2:]]
    os.rename(videos / "videos", videos / "moved")
    assert scanned(videos, "moved/2.mp4", "--frames", "2").code == 0
    paths = dict.fromkeys(frame["path"] for frame in frames_of(videos / "f.csv"))
    assert list(paths) == ["videos/1.mp4", "videos/copy.mp4", "moved/2.mp4"]
    assert scanned(videos, "moved/2.mp4", "--frames", "2", "--prune").code == 0
    assert {frame["path"] for frame in frames_of(videos / "f.csv")} == {"moved/2.mp4"}
    assert scanned(videos, "moved/1.mp4", "--frames", "2", "--fresh").code == 0
    assert [frame["path"] for frame in frames_of(videos / "f.csv")] == ["moved/1.mp4"] * 2
    assert len(list((videos / "f.csv.parts").iterdir())) == 1


class Stopped(Exception):
    """An end of the scan between its parts and its journal."""


def test_a_scan_that_ends_between_parts_and_journal_loses_and_doubles_nothing(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scanned(videos, *OPTIONS, "--jobs", "1").code == 0
    whole = (videos / "f.csv").read_bytes()
    (videos / "r.jsonl").unlink()
    (videos / "f.csv").unlink()
    add = ResultFiles.add

    def dies_at_the_second(files: ResultFiles, *results: Any) -> Any:
        if results[0].index == 1:
            raise Stopped
        return add(files, *results)

    with monkeypatch.context() as patch:
        patch.setattr(ResultFiles, "add", dies_at_the_second)
        assert scanned(videos, *OPTIONS, "--jobs", "1").code == 70
    assert scanned(videos, *OPTIONS, "--jobs", "1").code == 0
    assert (videos / "f.csv").read_bytes() == whole


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ("f.txt", "has no known format: let it end in .parquet or .csv"),
        ("-", "cannot write to stdout"),
        ("r.csv", "names a file that this scan writes already"),
        ("other.csv", "exists and is no per-frame file of deepscan: move it away"),
        ("other.parquet", "exists and is no per-frame file of deepscan: move it away"),
        ("folder.csv", "is no file: give the path of a file"),
        ("input.csv", "is one of the inputs and would be overwritten"),
    ],
)
def test_no_other_file_is_replaced(frames: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "input.csv").symlink_to(NO_FACE)
    for name in ("other.csv", "other.parquet"):
        (tmp_path / name).write_text("path,model\nmine,too\n")
    before = sorted(tmp_path.iterdir())
    ran = scanned(tmp_path, "input.csv", frames=frames)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert said in ran.err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "other.csv").read_text() == "path,model\nmine,too\n"


def test_two_scans_cannot_write_one_file(videos: Path) -> None:
    with FrameStore(str(videos / "f.csv"), temporary=False):
        ran = scanned(videos, *OPTIONS)
    assert ran.code == 2
    assert "f.csv is being written by another scan: wait for it" in ran.err


def test_frames_that_cannot_be_written_end_the_scan_with_a_sentence(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: FrameRecorder, *arguments: object, **options: object) -> None:
        raise OutputError("Per-frame scores cannot be written to there (No space left on device): make room there.")

    with monkeypatch.context() as patch:
        patch.setattr(FrameRecorder, "add", full)
        ran = scanned(videos, *OPTIONS)
    assert ran.code == 3
    assert "No space left on device" in ran.err
    assert scanned(videos, *OPTIONS).code == 0
    assert len(frames_of(videos / "f.csv")) == 6


@pytest.mark.usefixtures("workers_here")
def test_programs_write_frames_without_a_journal(videos: Path) -> None:
    out = videos / "frames" / "f.parquet"
    results = list(scan(videos / "videos", frames=2, per_frame=out))
    assert [path.name for path in out.parent.iterdir()] == ["f.parquet"]
    assert [frame["path"] for frame in frames_of(out)] == [
        str(videos / "videos" / f"{n}.mp4") for n in (0, 0, 1, 1, 2, 2)
    ]
    assert {result.settings_sha256 for result in results} == {
        result.settings_sha256 for result in scan(videos / "videos" / "0.mp4", frames=2)
    }
    whole = out.read_bytes()
    for _ in scan(videos / "videos", frames=2, per_frame=out):
        break
    assert out.read_bytes() == whole
    assert [path.name for path in out.parent.iterdir()] == ["f.parquet"]
    with pytest.raises(UsageError, match=r"per_frame .* has no known format"):
        scan(NO_FACE, per_frame="f.xlsx")


@pytest.mark.parametrize("encode", [frame_files._csv, frame_files._parquet])
def test_rows_are_written_in_pieces_whatever_their_number(encode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_files, "ROWS_AT_ONCE", 100)
    taken = 0

    def rows() -> Any:
        nonlocal taken
        for number in range(1001):
            taken += 1
            yield (
                "a\udcff.mp4",
                "lite",
                0,
                number / 25,
                number,
                True,
                *[1.5] * 4,
                *[math.nan] * 10,
                0.0,
                0.0,
                1,
                0,
                0.5,
            )

    seen = [taken for _ in encode(rows())]
    assert max(after - before for before, after in pairwise([0, *seen])) <= 100
    assert taken == 1001


def test_the_folder_of_parts_lies_beside_the_file() -> None:
    assert parts_folder("there/f.csv") == "there/f.csv.parts"
