"""Scans with calibration profiles: what they change, for what they are refused, and installed ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from deepscan import scan
from deepscan.errors import UsageError
from deepscan.evaluation.profiles import write_profile
from deepscan.options import ScanOptions
from deepscan.profiles import Isotonic, Platt, Profile, Threshold
from deepscan.results import VideoResult
from deepscan.runtime.artifacts.profile_store import (
    damaged_profiles,
    install_profile,
    installed_profiles,
    remove_profile,
)
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.system.files import HOME_VARIABLE
from tests.cli.console import deepscan, rows_of
from tests.footage import ASTRONAUT, TWO_FACES
from tests.runtime.tiny_detectors import tiny_frame_artifact

pytestmark = pytest.mark.usefixtures("workers_here")
QUICK: dict[str, Any] = {"sampling": "quick", "frames": 3}
OPTIONS = ("--sampling", "quick", "--frames", "3")
SHIFT = Platt(scale=0.5, offset=-2.0)
PROMISE = Threshold(fake_from=0.02, max_fpr=0.05, false_alarms=1, genuine=120, upper=0.04, groups=100)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def plain() -> VideoResult:
    (found,) = scan(TWO_FACES, **QUICK)
    return found


def profile_for(row: VideoResult, **changed: Any) -> Profile:
    made = Profile(
        detector=row.model,
        weights_sha256=row.weights_sha256,
        settings_sha256=row.settings_sha256,
        labels="truth.csv",
        fakes=100,
        genuine=120,
        groups=150,
        calibration=SHIFT,
        trained_prevalence=0.4,
    )
    return structs.replace(made, **changed)


def written(profile: Profile, path: Path) -> str:
    write_profile(profile, path)
    return str(path)


@pytest.mark.parametrize("calibration", [SHIFT, Isotonic(scores=(0.0, 0.4, 1.0), probabilities=(0.0, 0.3, 0.9))])
def test_a_profile_calibrates_every_score_of_a_row(plain: VideoResult, tmp_path: Path, calibration: Any) -> None:
    profile = profile_for(plain, calibration=calibration, prevalence=0.1)
    (row,) = scan(TWO_FACES, calibration=written(profile, tmp_path / "p.json"), **QUICK)
    assert plain.score is not None
    assert row.score == profile.calibrated(plain.score) != plain.score
    assert plain.peak is not None
    assert row.peak == structs.replace(plain.peak, score=profile.calibrated(plain.peak.score))
    assert len(row.details) == len(plain.details) >= 2
    for track, before in zip(row.details, plain.details, strict=True):
        assert track.score == profile.calibrated(before.score)
        assert [part.score for part in track.timeline] == [profile.calibrated(part.score) for part in before.timeline]
        kept = structs.replace(track, score=before.score, timeline=before.timeline)
        assert kept == before
    assert (row.real_below, row.fake_from) == (plain.real_below, plain.fake_from)
    assert row.settings_sha256 != plain.settings_sha256
    assert row.weights_sha256 == plain.weights_sha256


def test_a_promised_threshold_gives_the_label_and_threshold_overrides_it(plain: VideoResult, tmp_path: Path) -> None:
    low = written(profile_for(plain, threshold=structs.replace(PROMISE, fake_from=1e-6)), tmp_path / "low.json")
    (row,) = scan(TWO_FACES, calibration=low, **QUICK)
    assert (row.label, row.fake_from, row.real_below) == ("fake", 1e-6, 1e-6)
    high = written(profile_for(plain, threshold=structs.replace(PROMISE, fake_from=1.0)), tmp_path / "high.json")
    (strict,) = scan(TWO_FACES, calibration=high, **QUICK)
    assert strict.label != "fake"
    assert strict.fake_from == 1.0
    (given,) = scan(TWO_FACES, calibration=[high], threshold=1e-5, **QUICK)
    assert (given.label, given.fake_from) == ("fake", 1e-5)
    assert len({row.settings_sha256, strict.settings_sha256, given.settings_sha256}) == 3


def test_settings_change_with_the_content_of_a_profile_and_with_nothing_else(
    plain: VideoResult, tmp_path: Path
) -> None:
    def settings_of(profile: Profile, name: str) -> str:
        path = written(profile, tmp_path / name)
        return resolve_settings(ScanOptions(calibration=[path], **QUICK)).scoring[0].settings_sha256

    profile = profile_for(plain)
    assert settings_of(profile, "a.json") == settings_of(profile, "b.json")
    others = [
        profile_for(plain, calibration=Platt(scale=0.5, offset=-2.1)),
        profile_for(plain, prevalence=0.2),
        profile_for(plain, threshold=PROMISE),
    ]
    assert len({settings_of(each, "c.json") for each in [profile, *others]}) == 4
    untouched = resolve_settings(ScanOptions(calibration="none", **QUICK)).scoring[0]
    assert untouched.settings_sha256 == plain.settings_sha256


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({"detector": "recce"}, {}, "is a profile of recce, which is not among the detectors of this scan (lite)"),
        ({"weights_sha256": "ab" * 32}, {}, "was made for the weights abababababab, not for "),
        ({"settings_sha256": "cd" * 32}, {}, "was made for the settings cdcdcdcdcdcd, not for "),
        ({}, {"frames": 4}, "was made for the settings "),
        ({}, {"mirror": False}, "was made for the settings "),
    ],
)
def test_a_profile_is_refused_for_all_that_it_was_not_made_for(
    plain: VideoResult, tmp_path: Path, changed: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    path = written(profile_for(plain, **changed), tmp_path / "p.json")
    with pytest.raises(UsageError, match=re.escape(said)) as raised:
        scan(TWO_FACES, calibration=path, **{**QUICK, **options})
    assert str(raised.value).startswith(path)
    assert str(raised.value).count(". ") == 0


def test_what_is_no_profile_is_refused(plain: VideoResult, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("{}")
    with pytest.raises(UsageError, match="is no calibration profile"):
        scan(TWO_FACES, calibration=path, **QUICK)
    falling = msgspec.to_builtins(profile_for(plain)) | {"calibration": {"method": "platt", "scale": -1, "offset": 0}}
    path.write_bytes(msgspec.json.encode(falling))
    with pytest.raises(UsageError, match="a higher score means a higher probability"):
        scan(TWO_FACES, calibration=path, **QUICK)
    with pytest.raises(UsageError, match="cannot be read"):
        scan(TWO_FACES, calibration=tmp_path / "missing.json", **QUICK)
    good = written(profile_for(plain), path)
    with pytest.raises(UsageError, match="a second profile of lite"):
        scan(TWO_FACES, calibration=[good, good], **QUICK)
    with pytest.raises(UsageError, match="applies no profile at all"):
        scan(TWO_FACES, calibration=[good, "none"], **QUICK)


def test_each_detector_has_its_own_profile(plain: VideoResult, tmp_path: Path) -> None:
    frame = str(tiny_frame_artifact(tmp_path))
    both = {"model": ["lite", frame], **QUICK}
    lite, tiny = scan(TWO_FACES, **both)
    profile = profile_for(tiny)
    kept, calibrated = scan(TWO_FACES, calibration=written(profile, tmp_path / "tiny.json"), **both)
    assert kept.settings_sha256 == lite.settings_sha256
    assert kept.score == lite.score
    assert tiny.score is not None
    assert calibrated.score == profile.calibrated(tiny.score)


def test_an_installed_profile_is_applied_where_it_fits_and_none_switches_it_off(
    plain: VideoResult, tmp_path: Path
) -> None:
    profile = profile_for(plain, threshold=PROMISE)
    path = install_profile(profile)
    assert installed_profiles() == [profile]
    (row,) = scan(TWO_FACES, **QUICK)
    assert plain.score is not None
    assert row.score == profile.calibrated(plain.score)
    assert row.fake_from == PROMISE.fake_from
    (off,) = scan(TWO_FACES, calibration="none", **QUICK)
    assert structs.replace(off, elapsed_seconds=0.0) == structs.replace(plain, elapsed_seconds=0.0)
    other = scan(TWO_FACES, sampling="quick", frames=4)
    assert [note for note in other.plan.warnings if "lite has an installed profile" in note]
    own = profile_for(plain, calibration=Platt(scale=2.0, offset=0.0))
    (given,) = scan(TWO_FACES, calibration=written(own, tmp_path / "own.json"), **QUICK)
    assert given.score == own.calibrated(plain.score)
    remove_profile(profile)
    assert installed_profiles() == []
    path.write_text("{}")
    assert damaged_profiles() == [path]
    assert resolve_settings(ScanOptions(**QUICK)).scoring[0].settings_sha256 == plain.settings_sha256


def test_commands_install_show_and_remove_a_profile(plain: VideoResult, tmp_path: Path) -> None:
    path = written(profile_for(plain, threshold=PROMISE, prevalence=0.01), tmp_path / "p.json")
    assert "calibrated" not in deepscan("models", "lite").text
    ran = deepscan("weights", "calibrate", "hff", path)
    assert ran.code == 2
    assert "is a profile of lite, not of hff" in ran.err
    ran = deepscan("weights", "calibrate", "lite", path)
    assert ran.code == 0, ran.err
    for listing in (deepscan("models", "lite").text, deepscan("doctor").text.replace("\n     ", " ")):
        for said in (
            "by 100 fakes and 120 genuine videos in 150 groups (truth.csv), where 1 % are fake",
            "fake from 0.02, at most 5 % false alarms promised (1 of 120 genuine videos in 100 groups)",
            plain.settings_sha256[:12],
        ):
            assert said in listing
    assert deepscan("weights", "calibrate", "lite").code == 2
    assert deepscan("weights", "calibrate", "lite", path, "--remove").code == 2
    ran = deepscan("weights", "calibrate", "lite", "--remove")
    assert ran.code == 0
    assert "Removed the profile of lite" in ran.err
    assert deepscan("weights", "calibrate", "lite", "--remove").code == 2
    assert installed_profiles() == []


def test_a_scan_with_another_profile_scans_again_and_with_the_same_one_does_not(
    plain: VideoResult, tmp_path: Path
) -> None:
    out = tmp_path / "results.csv"
    one = written(profile_for(plain), tmp_path / "one.json")
    other = written(profile_for(plain, calibration=Platt(scale=1.0, offset=1.0)), tmp_path / "other.json")

    def planned(*options: str) -> str:
        return deepscan("scan", TWO_FACES, "--out", out, *OPTIONS, *options, "--dry-run").err

    assert deepscan("scan", TWO_FACES, "--out", out, *OPTIONS, "--calibration", one).code == 0
    assert "0 to scan, 1 done" in planned("--calibration", one)
    assert "1 to scan, 0 done" in planned("--calibration", other)
    assert "1 to scan, 0 done" in planned()
    (row,) = rows_of(out.read_bytes())
    assert plain.score is not None
    assert float(row["score"]) == pytest.approx(profile_for(plain).calibrated(plain.score), rel=1e-5)


def test_a_configuration_file_may_name_a_profile(plain: VideoResult, tmp_path: Path) -> None:
    path = written(profile_for(plain), tmp_path / "one.json")
    config = tmp_path / "scan.toml"
    config.write_text(f'calibration = ["{path}"]\n')
    ran = deepscan("scan", ASTRONAUT, "--config", config, "--show-config")
    assert f'calibration = ["{path}"]' in ran.text
