"""Whole evaluations: from results and labels to figures, parts, differences and the worst errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from deepscan.errors import UsageError
from deepscan.evaluation.evaluate import evaluate
from deepscan.evaluation.figures import Evaluation, Part
from deepscan.evaluation.metrics import NAMES
from deepscan.evaluation.truth import Truth, TruthRow
from deepscan.results import Label, Quality, Segment, VideoResult
from deepscan.runtime.store.frame_files import _parquet
from tests.runtime.result_rows import row, write

COUNT = 60
FAST = 200


def label_of(score: float) -> Label:
    return "fake" if score >= 0.7 else "real" if score < 0.3 else "uncertain"


def scored(number: int, score: float, *, model: str = "lite", **fields: Any) -> VideoResult:
    fields = {"path": f"{number}.mp4", "status": "scored", "label": label_of(score)} | fields
    peak = Segment(start_seconds=number, end_seconds=number + 1, score=score, clips=1)
    return row(number, score=score, peak=peak, model=model, **fields)


def truth(count: int = COUNT, **of_row: Callable[[int], Any]) -> Truth:
    """Even videos are fake."""
    rows = (
        TruthRow(
            path=f"{number}.mp4",
            label="real" if number % 2 else "fake",
            **{name: value(number) for name, value in of_row.items()},
        )
        for number in range(count)
    )
    return Truth(source="truth.csv", layout="truth.csv", folder="/nowhere", rows=tuple(rows))


def scores(count: int = COUNT, shift: float = 1.0, seed: int = 0) -> list[float]:
    random = np.random.default_rng(seed)
    logits = random.normal(size=count) + np.where(np.arange(count) % 2, -shift, shift)
    return [float(score) for score in 1 / (1 + np.exp(-logits))]


def results(shift: float = 1.0, seed: int = 0, model: str = "lite") -> list[VideoResult]:
    return [scored(number, score, model=model) for number, score in enumerate(scores(shift=shift, seed=seed))]


def run(rows: list[VideoResult], labels: Truth, **options: Any) -> Evaluation:
    return evaluate(rows, labels, **{"resamples": FAST, **options})


def part(found: Evaluation, factor: str, value: str) -> Part:
    (only,) = (part for part in found.detectors[0].parts if (part.factor, part.value) == (factor, value))
    return only


def test_figures_come_with_intervals_coverage_and_the_hashes_they_hold_for() -> None:
    found = run(results(), truth())
    (lite,) = found.detectors
    fake = [number % 2 == 0 for number in range(COUNT)]
    assert lite.overall.figures["auc"].value == pytest.approx(roc_auc_score(fake, scores()), abs=1e-12)
    assert lite.overall.figures.keys() == set(NAMES)
    for figure in lite.overall.figures.values():
        assert figure.value is not None
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value + 0.02  # but for the calibration error, which is reflected
        assert figure.low < figure.high
    assert (lite.overall.fakes, lite.overall.genuine, lite.overall.coverage) == (30, 30, 1.0)
    assert (lite.overall.fake_groups, lite.overall.genuine_groups, lite.overall.caution) == (30, 30, "")
    assert lite.overall.as_errors == lite.overall.figures
    assert (lite.weights_sha256, lite.settings_sha256, lite.parts, lite.notes) == (("ab",), ("cd",), (), ())
    assert str(lite.overall.figures["auc"]).count(",") == 1
    assert run(results(), truth()) == found
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found
    assert run(results(), truth(), seed=1) != found


def test_videos_without_a_score_are_left_out_and_counted_as_errors() -> None:
    rows = results()
    rows[0] = row(0, status="no_face", path="0.mp4")
    rows[1] = row(1, status="unreadable", path="1.mp4")
    rows[2] = scored(2, float("nan"), label="fake")
    (lite,) = run(rows, truth()).detectors
    fake = np.arange(COUNT) % 2 == 0
    kept = np.array(scores())
    assert lite.overall.figures["auc"].value == pytest.approx(roc_auc_score(fake[3:], kept[3:]), abs=1e-12)
    kept[[0, 1, 2]] = -1, 2, -1
    assert lite.overall.as_errors["auc"].value == pytest.approx(roc_auc_score(fake, kept), abs=1e-12)
    assert lite.overall.as_errors["average_precision"].value == pytest.approx(average_precision_score(fake, kept))
    assert lite.overall.as_errors["log_loss"].reason == "videos without a score have none"
    assert (lite.overall.scored_fakes, lite.overall.scored_genuine, lite.overall.coverage) == (28, 29, 0.95)
    assert lite.unscored == {"no_face": 1, "unreadable": 1, "scored": 1}
    assert lite.notes == ("1 score is no number from 0 to 1 and left out.",)


def test_parts_are_made_of_what_rows_and_labels_say() -> None:
    sizes = {0: (640, 360), 1: (1080, 1920), 2: (None, None)}
    rows = [
        scored(
            number,
            score,
            codec="h264" if number % 4 < 2 else "vp9",
            width=sizes[number % 3][0],
            height=sizes[number % 3][1],
            duration_seconds=3.0 if number < 30 else 100.0,
            content=f"fast:{100 * (number + 1)}:{number:02x}",
        )
        for number, score in enumerate(scores())
    ]
    labels = truth(
        dataset=lambda number: "A" if number < 40 else "B",
        method=lambda number: None if number % 2 else "swap" if number < 20 else "lips",
    )
    found = run(rows, labels)
    sections = {(each.factor, each.value): each.figures for each in found.detectors[0].parts}
    assert sections["codec", "vp9"].fakes == 15
    assert sections["resolution", "360 to 720 p"].fakes + sections["resolution", "360 to 720 p"].genuine == 20
    assert {value for factor, value in sections if factor == "resolution"} == {"360 to 720 p", "from 1080 p", "unknown"}
    assert {value for factor, value in sections if factor == "duration"} == {"below 5 s", "from 60 s"}
    assert sections["bitrate", "unknown"].fakes == 10
    assert sections["method", "swap"].fakes == 10
    assert part(found, "method", "swap").against == "genuine of A"
    assert sections["method", "swap"].genuine == 20
    assert sections["method", "lips"].genuine == 30
    assert not any(factor in ("quality", "face_size") for factor, _ in sections)
    pair = [sections["dataset", name].figures["auc"].value for name in "AB"]
    macro = found.detectors[0].macro["dataset"]["auc"]
    assert macro.value == pytest.approx(np.mean([value for value in pair if value is not None]))
    assert macro.low is not None
    assert macro.value is not None
    assert macro.low < macro.value
    assert set(found.detectors[0].macro) == {"dataset", "method"}


def test_methods_without_genuine_videos_of_their_own_are_compared_with_all() -> None:
    labels = truth(
        dataset=lambda number: "real ones" if number % 2 else "fakes",
        method=lambda number: None if number % 2 else "swap",
    )
    found = run(results(), labels)
    assert part(found, "method", "swap").against == "all genuine"
    assert part(found, "method", "swap").figures.genuine == 30
    assert part(found, "dataset", "fakes").figures.figures["auc"].reason == "there is no genuine video"
    assert found.detectors[0].macro["dataset"]["auc"].reason == "it exists in none of the parts"
    assert found.detectors[0].macro["dataset"]["brier"].value is not None


def test_quality_and_face_size_count_as_soon_as_rows_have_them() -> None:
    small = Quality(sharpness=0.5, blockiness=1.0, bits_per_pixel=None, face_pixels=99)
    rows = [
        msgspec.structs.replace(each, quality="low", quality_details=small) if each.index < 20 else each
        for each in results()
    ]
    found = run(rows, truth())
    assert part(found, "quality", "low").figures.genuine == 10
    assert part(found, "face_size", "below 100 pixels").figures.fakes == 10


def test_differences_are_paired_on_the_videos_that_both_have_scored() -> None:
    strong, weak = results(shift=1.5), results(shift=1.5, model="weak")
    weak = [
        scored(each.index, (each.score or 0) * 0.2 + 0.8 * noise, model="weak")
        for each, noise in zip(weak, scores(shift=0, seed=5), strict=True)
    ]
    weak[3] = row(3, status="no_face", path="3.mp4", model="weak")
    found = run(strong + weak, truth())
    (difference,) = found.differences
    assert (difference.first, difference.second, difference.fakes, difference.genuine) == ("lite", "weak", 30, 29)
    gap = difference.figures["auc"]
    assert gap.value is not None
    assert gap.low is not None
    assert gap.high is not None
    assert 0 < gap.low < gap.value < gap.high
    assert difference.sentence().startswith(f"lite is better than weak by {gap.value:.3f} [")
    widths = [figures.overall.figures["auc"] for figures in found.detectors]
    assert gap.high - gap.low < sum((each.high or 0) - (each.low or 0) for each in widths)
    brier = difference.figures["brier"]
    assert brier.value is not None
    assert brier.value < 0
    assert difference.sentence("brier").startswith("lite is better than weak by ")


def test_detectors_that_are_the_same_are_not_told_apart() -> None:
    (difference,) = run(results() + results(model="twin"), truth()).differences
    assert difference.figures["auc"].value == 0.0
    assert difference.sentence() == "Whether lite is better than twin is not known: 0.000 [0.000, 0.000] in AUC."


def test_only_the_factors_asked_for_divide_the_videos() -> None:
    labels = truth(method=lambda _: "swap", dataset=lambda number: "a" if number < 30 else "b")
    assert {part.factor for part in run(results(), labels).detectors[0].parts} == {"dataset", "method"}
    (lite,) = run(results(), labels, by=["method"]).detectors
    assert {part.factor for part in lite.parts} == set(lite.macro) == {"method"}
    with pytest.raises(UsageError, match="by 'color' is not known: use one of dataset, method, codec, "):
        run(results(), labels, by="color")


def test_as_many_of_the_worst_errors_are_kept_as_asked_for() -> None:
    (lite,) = run(results(), truth(), worst=3).detectors
    assert lite.worst_fakes == run(results(), truth()).detectors[0].worst_fakes[:3]
    assert len(lite.worst_genuine) == 3


def test_the_worst_errors_can_be_looked_at() -> None:
    (lite,) = run(results(), truth(method=lambda _: "swap")).detectors
    assert len(lite.worst_fakes) == len(lite.worst_genuine) == 20
    ordered = sorted((score, number) for number, score in enumerate(scores()) if number % 2 == 0)
    assert [each.path for each in lite.worst_fakes] == [f"{number}.mp4" for _, number in ordered[:20]]
    worst = lite.worst_genuine[0]
    assert worst.score == max(scores()[1::2])
    assert worst.peak_start_seconds == int(worst.path.removesuffix(".mp4"))
    assert worst.label == label_of(worst.score)


def test_groups_make_intervals_wider_and_few_of_them_are_said() -> None:
    single = run(results(), truth()).detectors[0].overall
    grouped = run(results(), truth(group=lambda number: f"g{number // 10}")).detectors[0].overall
    assert (grouped.fake_groups, grouped.genuine_groups) == (6, 6)
    assert grouped.caution.startswith(
        "This is a small sample, with only 6 groups of forged videos and 6 groups of genuine"
    )
    assert grouped.figures["auc"].value == single.figures["auc"].value
    lonely = run(results(), truth(group=lambda _: "one")).detectors[0].overall.figures["auc"]
    assert (lonely.low, lonely.reason) == (None, "there are too few groups for an interval")


def test_one_class_gives_what_it_can() -> None:
    labels = Truth(source="t", layout="truth.csv", folder="/", rows=truth().rows[1::2])
    (lite,) = run(results(), labels).detectors
    assert lite.overall.figures["auc"].reason == "there is no fake"
    assert lite.overall.figures["real_called_fake"].value is not None
    assert lite.worst_fakes == ()


def test_results_of_several_settings_are_pointed_out() -> None:
    rows = results()
    rows[0] = scored(0, 0.9, settings_sha256="other")
    (lite,) = run(rows, truth()).detectors
    assert lite.settings_sha256 == ("cd", "other")
    assert lite.notes == ("The results were made with 1 file of weights and 2 settings: scan all videos alike.",)


def test_a_planted_leak_is_found() -> None:
    rows = [scored(number, score, content=f"fast:1:{number % 58}") for number, score in enumerate(scores())]
    labels = truth(split=lambda number: "train" if number < 30 else "test")
    found = run(rows, labels, split="test")
    assert any(
        note.startswith("2 leaks were found, with the same content or group in two splits: 0.mp4 and 58")
        for note in found.notes
    )
    assert found.detectors[0].overall.fakes == 15


def test_a_finished_scan_is_read_with_its_damage(tmp_path: Path) -> None:
    write(tmp_path / "r.csv", *results())
    lines = ["path,label", *(f"{number}.mp4,{'real' if number % 2 else 'fake'}" for number in range(COUNT))]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    found = evaluate(tmp_path / "r.csv", tmp_path / "truth.csv", resamples=FAST)
    (lite,) = found.detectors
    assert lite.overall.figures["auc"].value == pytest.approx(
        roc_auc_score([number % 2 == 0 for number in range(COUNT)], scores()), abs=1e-3
    )
    with open(tmp_path / "r.jsonl", "a") as file:
        file.write('{"path": \n')
    assert "1 damaged line of" in evaluate(tmp_path / "r.jsonl", tmp_path / "truth.csv", resamples=FAST).notes[0]
    (tmp_path / "other.jsonl").write_text(json.dumps({"version": 99}) + "\n")
    with pytest.raises(UsageError, match="holds no results of a scan"):
        evaluate(tmp_path / "other.jsonl", tmp_path / "truth.csv")
    with pytest.raises(UsageError, match="There are no results to evaluate"):
        evaluate([], tmp_path / "truth.csv")
    for both in ("r.csv", "r.jsonl"):
        with pytest.raises(UsageError, match=f"{both} holds the results: give another file for the labels"):
            evaluate(tmp_path / "r.csv", tmp_path / both)


@pytest.mark.parametrize("number", [{"resamples": 1}, {"resamples": 2.5}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(number: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be a whole number from"):
        run(results(), truth(), **number)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"sklearn", "scipy", "matplotlib", "av", "onnxruntime", "cv2", "torch"}
    code = f"import sys, deepscan.evaluation.evaluate; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_examples_of_the_page_work_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    monkeypatch.chdir(tmp_path)
    rows = results()
    write(tmp_path / "results.csv", *rows)
    crops = ((row.path, row.model, 0, 0.0, 0, True, *[0.0] * 14, 0.0, 0.0, 1, 0.0, row.score) for row in rows)
    (tmp_path / "frames.parquet").write_bytes(b"".join(_parquet(crops)))
    lines = ["path,label", *(f"{number}.mp4,{'real' if number % 2 else 'fake'}" for number in range(COUNT))]
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    names: dict[str, Any] = {}
    for example in examples:  # in the order in which they are read
        exec(compile(example, "docs/evaluation.md", "exec"), names)
    assert json.loads((tmp_path / "profile.json").read_text())["prevalence"] == 0.01
