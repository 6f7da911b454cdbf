"""`deepscan calibrate`: profiles and fusions of labeled results, what they promise, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

from deepscan.profiles import read_fusion, read_profile
from deepscan.results import VideoResult
from deepscan.runtime.store.journal import line_of
from tests.cli.console import Ran, assert_one_line, deepscan
from tests.runtime.result_rows import row

COUNT = 160
HASHES = {"lite": ("ab" * 32, "cd" * 32), "weak": ("12" * 32, "34" * 32), "blind": ("56" * 32, "78" * 32)}


def results_of(model: str, shift: float, seed: int, offset: float = 0.0) -> list[VideoResult]:
    """Return results of videos of which those with an even number are fake; `offset` makes all scores too high."""
    random = np.random.default_rng(seed)
    weights, settings = HASHES[model]
    found = []
    for number in range(COUNT):
        logit = offset + 2 * (random.normal() + (-shift if number % 2 else shift))
        score = float(1 / (1 + np.exp(-logit)))
        found.append(
            row(
                number,
                path=f"/videos/{number}.mp4",
                status="scored",
                score=score,
                label="fake",
                model=model,
                weights_sha256=weights,
                settings_sha256=settings,
            )
        )
    return found


def written(folder: Path, *results: list[VideoResult]) -> None:
    (folder / "r.jsonl").write_bytes(b"".join(line_of(each) for rows in results for each in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with r.jsonl of one detector, whose scores are too high, and truth.csv."""
    written(tmp_path, results_of("lite", 0.7, 0, offset=2.0))
    lines = ["path,label", *(f"{number}.mp4,{'real' if number % 2 else 'fake'}" for number in range(COUNT))]
    (tmp_path / "truth.csv").write_text("\n".join([*lines, "absent.mp4,real"]))
    return tmp_path


def calibrated(folder: Path, *arguments: str, **environment: str) -> Ran:
    return deepscan("calibrate", "r.jsonl", "--labels", "truth.csv", *arguments, cwd=folder, env=environment or None)


def test_a_profile_is_written_and_its_evidence_shown(folder: Path) -> None:
    ran = calibrated(folder, "--prevalence", "0.01")
    assert ran.code == 0, ran.err
    profile = read_profile(folder / "profile.json")
    assert (profile.detector, profile.fakes, profile.genuine, profile.prevalence) == ("lite", 80, 80, 0.01)
    assert (profile.weights_sha256, profile.settings_sha256) == HASHES["lite"]
    assert profile.labels == "truth.csv (truth.csv)"
    assert "1 label is of a video without a result: absent.mp4." in ran.text
    assert "lite: logistic (Platt) calibration, fitted to 80 fakes and 80 genuine videos with a score" in ran.text
    found = re.search(r"^calibration error \(ECE\) +(0\.\d+) \[.*\] +(0\.\d+) \[.*\]$", ran.text, re.MULTILINE)
    assert found is not None
    assert float(found[2]) < float(found[1])
    meaning = re.search(r"^0\.9 +(0\.\d+) +(0\.\d+)$", ran.text, re.MULTILINE)
    assert meaning is not None
    assert float(meaning[2]) == pytest.approx(float(profile.probability(np.array([0.9]))[0]), abs=1e-4)
    assert "Labels keep the thresholds of the detector" in ran.text
    assert ran.text.endswith("Written: profile.json. A scan applies it with --calibration profile.json.\n")
    assert calibrated(folder).code == 0  # its own file is replaced


def test_a_promised_rate_sets_the_threshold_or_says_how_many_videos_are_missing(folder: Path) -> None:
    ran = calibrated(folder, "--max-fpr", "0.05")
    assert ran.code == 0, ran.err
    held = read_profile(folder / "profile.json").threshold
    assert held is not None
    assert held.upper <= 0.05
    assert f"fake from {held.fake_from:.4g}: at most 5 % of genuine videos are called fake" in ran.text
    assert f"Here it is {held.false_alarms} of 80 genuine videos; the upper bound" in ran.text
    (folder / "profile.json").unlink()
    ran = calibrated(folder, "--max-fpr", "0.01")
    assert_one_line(ran, 2)
    assert "needs 299 genuine videos with a score, and there are 80: 219 are missing" in ran.err
    assert not (folder / "profile.json").exists()


def test_the_screen_fits_a_terminal_of_80_columns(folder: Path) -> None:
    ran = calibrated(folder, "--prevalence", "0.01", "--max-fpr", "0.05", COLUMNS="80", FORCE_COLOR="1")
    plain = re.sub(r"\x1b\[[\d;]*m", "", ran.text)
    assert "what a score means" in plain.lower()
    assert [line for line in plain.splitlines() if cell_len(line) > 80] == []


def test_of_several_detectors_one_is_chosen_or_asked_for(folder: Path) -> None:
    written(folder, results_of("lite", 1.0, 0), results_of("weak", 0.5, 1))
    ran = calibrated(folder)
    assert_one_line(ran, 2)
    assert "The results are of 2 detectors: choose one with --model lite" in ran.err
    assert calibrated(folder, "--model", "weak").code == 0
    assert read_profile(folder / "profile.json").detector == "weak"
    for wrong in ("hff", "lite,weak"):
        assert_one_line(calibrated(folder, "--model", wrong), 2)


def test_a_fusion_says_whether_it_is_better(folder: Path) -> None:
    written(folder, results_of("lite", 0.6, 3), results_of("weak", 0.6, 13))
    ran = calibrated(folder, "--fuse", "--out", "fusion.json")
    assert ran.code == 0, ran.err
    fusion = read_fusion(folder / "fusion.json")
    assert [profile.detector for profile in fusion.profiles] == ["lite", "weak"]
    assert re.search(r"^The fusion is better than (lite|weak) alone: its AUC is 0\.\d{3} \[", ran.text, re.MULTILINE)
    assert "A scan applies it with --fuse fusion.json." in ran.text
    written(folder, results_of("lite", 1.0, 0), results_of("blind", 0.05, 5))
    ran = calibrated(folder, "--fuse", "--out", "fusion.json", "--model", "lite,blind")
    assert ran.code == 0, ran.err
    assert re.search(r"^The fusion is not shown to be better than lite alone: ", ran.text, re.MULTILINE)
    assert "As far as these videos show, lite alone does as well." in ran.text


def test_the_recipe_works_as_printed(folder: Path) -> None:
    recipes = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    (line,) = re.findall(r"^    deepscan (calibrate .*)$", recipes, re.MULTILINE)
    (folder / "r.jsonl").rename(folder / "labeled.jsonl")
    ran = deepscan(*line.split(), cwd=folder)
    assert ran.code == 0, ran.err
    assert read_profile(folder / "profile.json").threshold is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prevalence", "0"], "more than 0"),
        (["--prevalence", "1"], "between 0 and 1"),
        (["--max-fpr", "1"], "between 0 and 1"),
        (["--method", "isotonic"], "Isotonic calibration needs 1000 videos, and there are 160"),
        (["--fuse"], "at least 2 detectors"),
        (["--fuse", "--max-fpr", "0.05"], "apply to one detector"),
        (["--out", "truth.csv"], "was not written by deepscan"),
        (["--out", "r.jsonl"], "was not written by deepscan"),
        (["--labels", "r.jsonl"], "holds the results"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(folder: Path, arguments: list[str], said: str) -> None:
    ran = calibrated(folder, *arguments)
    assert_one_line(ran, 2)
    assert said in ran.err
    assert not (folder / "profile.json").exists()


def test_labels_are_needed_and_both_classes_of_them(folder: Path) -> None:
    assert_one_line(deepscan("calibrate", "r.jsonl", cwd=folder), 2)
    lines = (folder / "truth.csv").read_text().splitlines()
    (folder / "truth.csv").write_text("\n".join(line for line in lines if not line.endswith("fake")))
    ran = calibrated(folder)
    assert_one_line(ran, 2)
    assert "at least 10 fakes and 10 genuine videos with a score, and there are 0 and 80" in ran.err


def test_results_of_several_settings_are_refused(folder: Path) -> None:
    rows = results_of("lite", 1.0, 0)
    other = row(0, path="/videos/0.mp4", status="scored", score=0.5, label="real", weights_sha256=HASHES["lite"][0])
    written(folder, [other, *rows[1:]])
    ran = calibrated(folder)
    assert_one_line(ran, 2)
    assert "1 kind of weights and 2 kinds of settings" in ran.err


def test_without_scikit_learn_the_command_that_installs_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    ran = calibrated(folder)
    assert_one_line(ran, 3)
    assert re.search(r"Calibrating needs the package sklearn\S*: run `.*evaluate.*`\.", ran.err)
