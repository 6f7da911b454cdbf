"""Scans with `--fuse`: the row that is made of those of several detectors, and what is known of it."""

from __future__ import annotations

import json
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from deepscan import scan
from deepscan.errors import UsageError
from deepscan.evaluation.profiles import write_profile
from deepscan.options import ScanOptions
from deepscan.profiles import FusedSubset, Fusion, Platt, Profile
from deepscan.results import VideoResult
from deepscan.runtime.artifacts.profile_store import install_profile, remove_profile
from deepscan.runtime.pipeline.fusing import FusedDetector, resolve_fusion
from deepscan.runtime.pipeline.settings import resolve_settings
from tests.cli.console import Ran, deepscan, rows_of
from tests.footage import ASTRONAUT, NO_FACE, TWO_FACES, portrait, write_video
from tests.runtime.tiny_detectors import tiny_clip_artifact, tiny_frame_artifact

pytestmark = pytest.mark.usefixtures("workers_here")


class Members:
    """Two tiny detectors, the options of a scan with them, and a fusion of both."""

    def __init__(self, folder: Path) -> None:
        self.frame, self.clip = str(tiny_frame_artifact(folder)), str(tiny_clip_artifact(folder))
        self.options: dict[str, Any] = {"model": [self.frame, self.clip], "sampling": "quick"}
        keys = resolve_settings(ScanOptions(**self.options)).uncalibrated
        self.profiles = tuple(
            Profile(
                detector=key.model,
                weights_sha256=key.weights_sha256,
                settings_sha256=key.settings_sha256,
                fakes=100,
                genuine=100,
                groups=200,
                calibration=Platt(scale=0.5, offset=0.25 * number),
                trained_prevalence=0.5,
            )
            for number, key in enumerate(keys, 1)
        )
        names = [profile.detector for profile in self.profiles]
        sets = chain.from_iterable(combinations(names, size) for size in (1, 2))
        self.fusion = Fusion(
            profiles=self.profiles,
            subsets=tuple(FusedSubset(detectors=each, weights=(0.7,) * len(each), offset=0.1) for each in sets),
            trained_prevalence=0.5,
        )
        self.path = str(folder / "fusion.json")
        write_profile(self.fusion, self.path)
        self.command = ("--model", ",".join(self.options["model"]), "--sampling", "quick")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    return Members(tmp_path_factory.mktemp("members"))


@pytest.fixture(scope="module")
def short_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face in two frames: too few for the clip detector."""
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", [portrait()] * 2)


def without_time(result: VideoResult, **changed: Any) -> VideoResult:
    return structs.replace(result, elapsed_seconds=0.0, **changed)


def test_the_fused_row_follows_those_of_its_detectors_which_stay_as_they_are(members: Members) -> None:
    plain = list(scan(TWO_FACES, **members.options))
    running = scan(TWO_FACES, fuse=members.path, **members.options)
    assert running.models == ["tiny-frame", "tiny-clip", "fused"]
    *own, fused = running
    assert [without_time(row, row=0) for row in own] == [without_time(row, row=0) for row in plain]
    assert [row.row for row in (*own, fused)] == [0, 1, 2]
    assert fused.score == members.fusion.probability({row.model: row.score for row in own})
    assert (fused.model, fused.status) == ("fused", "scored")
    assert (fused.real_below, fused.fake_from) == (0.5, 0.85)
    assert fused.clips == sum(row.clips for row in own)
    assert fused.peak is not None
    highest = max(zip(members.profiles, own, strict=True), key=lambda pair: pair[0].calibrated(pair[1].score or 0))
    assert highest[1].peak is not None
    assert fused.peak.score == highest[0].calibrated(highest[1].peak.score)
    (*_, strict) = scan(TWO_FACES, fuse=members.path, threshold=0.01, **members.options)
    assert (strict.label, strict.fake_from) == ("fake", 0.01)
    assert strict.settings_sha256 != fused.settings_sha256


def test_a_detector_without_a_score_leaves_the_others_and_none_leaves_a_status(
    members: Members, short_video: Path
) -> None:
    frame, clip, fused = scan(short_video, fuse=members.path, **members.options)
    assert (frame.status, clip.status) == ("scored", "too_short")
    assert fused.score == members.fusion.probability({"tiny-frame": frame.score})
    assert "tiny-clip has no score (too_short)" in fused.reason
    assert frame.label == fused.label == "uncertain"  # as two sightings are too few, whatever the scores
    *_, nobody = scan(NO_FACE, fuse=members.path, **members.options)
    assert (nobody.status, nobody.score, nobody.label) == ("no_face", None, None)
    *_, missing = scan("missing.mp4", fuse=members.path, **members.options)
    assert (missing.status, missing.score) == ("unreadable", None)
    assert missing.reason


def test_where_no_detector_has_a_score_the_most_telling_status_stands(members: Members) -> None:
    fused = detector_of(members)
    base = next(iter(scan(NO_FACE, **members.options)))
    clip = structs.replace(base, model="tiny-clip", status="too_short", reason="2 frames in a row")
    row = fused.add([base, clip])[-1]
    assert (row.status, row.row) == ("too_short", 2)
    assert row.reason == "tiny-frame has no score (no_face); tiny-clip has no score (too_short); 2 frames in a row"


def detector_of(members: Members, **options: Any) -> FusedDetector:
    given = ScanOptions(fuse=members.path, **{**members.options, **options})
    found = resolve_fusion(resolve_settings(given), given)
    assert found is not None
    return found


def test_a_fusion_is_refused_for_other_detectors_and_settings(members: Members, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="tiny-clip is not among the detectors of this scan: give model tiny-frame,tiny-clip"
    ):
        detector_of(members, model=[members.frame])
    with pytest.raises(UsageError, match=r"was made for the settings .* calibrate anew"):
        detector_of(members, clips=2)
    with pytest.raises(UsageError, match="takes the detectors' own scores, and has profiles itself"):
        detector_of(members, calibration="profile.json")
    path = tmp_path / "fusion.json"
    changed = json.loads(Path(members.path).read_text())
    changed["subsets"].pop()
    path.write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="a fusion has a model for each set of its detectors"):
        scan(TWO_FACES, fuse=path, **members.options)


def test_an_installed_profile_is_not_applied_to_what_is_fused(members: Members) -> None:
    before = detector_of(members).settings_sha256
    install_profile(members.profiles[0])
    try:
        assert detector_of(members).settings_sha256 == before
        settings = resolve_settings(ScanOptions(fuse=members.path, **members.options))
        assert [each.profile for each in settings.scoring] == [None, None]
        assert settings.notes == ()
    finally:
        remove_profile(members.profiles[0])


def test_known_results_are_fused_without_a_scan_and_fused_ones_are_known(
    members: Members, short_video: Path, tmp_path: Path
) -> None:
    out, journal = tmp_path / "r.csv", tmp_path / "r.jsonl"
    inputs = (ASTRONAUT, short_video)

    def run(*options: str) -> Ran:
        return deepscan("scan", *inputs, "--out", out, *members.command, *options)

    assert run().code == 1  # one is too short for clips
    assert len(journal.read_text().splitlines()) == 4
    planned = run("--fuse", members.path, "--dry-run")
    assert "0 to scan, 2 done" in planned.err
    ran = run("--fuse", members.path)
    assert ran.code == 1, ran.err
    rows = rows_of(out.read_bytes())
    assert [row["model"] for row in rows] == ["tiny-frame", "tiny-clip", "fused"] * 2
    lines = journal.read_text().splitlines()
    assert len(lines) == 6
    at_once = list(scan(list(map(str, inputs)), fuse=members.path, **members.options))
    expected = {row.row: row.to_dict() for row in at_once}
    for number, row in enumerate(rows):
        assert row["score"] == ("" if expected[number]["score"] is None else str(expected[number]["score"]))
        assert row["settings_sha256"] == expected[number]["settings_sha256"]
        assert row["reason"] == expected[number]["reason"]
    assert run("--fuse", members.path).code == 1
    assert journal.read_text().splitlines() == lines
    other = tmp_path / "other.json"
    subsets = tuple(structs.replace(each, offset=0.3) for each in members.fusion.subsets)
    write_profile(structs.replace(members.fusion, subsets=subsets), other)
    assert run("--fuse", str(other)).code == 1
    assert len(journal.read_text().splitlines()) == 8
    changed = rows_of(out.read_bytes())
    assert len(changed) == 6
    assert all(
        one["settings_sha256"] != two["settings_sha256"] for one, two in zip(changed[2::3], rows[2::3], strict=True)
    )
    assert all(one == two for at in (0, 1) for one, two in zip(changed[at::3], rows[at::3], strict=True))


def test_fused_rows_are_written_as_files_finish(members: Members, tmp_path: Path) -> None:
    copy = tmp_path / "copy.webm"
    copy.write_bytes(TWO_FACES.read_bytes())
    out = tmp_path / "r.csv"
    ran = deepscan("scan", TWO_FACES, copy, "--out", out, *members.command, "--fuse", members.path)
    assert ran.code == 0, ran.err
    rows = rows_of(out.read_bytes())
    assert [row["model"] for row in rows] == ["tiny-frame", "tiny-clip", "fused"] * 2
    assert rows[2]["score"] == rows[5]["score"] != ""
    ran = deepscan("scan", TWO_FACES, "--jsonl", "-", *members.command, "--fuse", members.path)
    assert [json.loads(line)["model"] for line in ran.text.splitlines()] == ["tiny-frame", "tiny-clip", "fused"]
