from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from sklearn.metrics import roc_auc_score

from deepscan.errors import UsageError
from deepscan.evaluation.evaluate import evaluate
from deepscan.evaluation.figure_rows import figure_rows
from deepscan.evaluation.truth import Truth, TruthRow
from deepscan.results import VideoResult
from deepscan.runtime.store.frame_files import _csv
from tests.runtime.result_rows import row

COUNT = 40
FAST = 100
REAL_BELOW, FAKE_FROM = 0.3, 0.7


def results(model: str = "lite") -> list[VideoResult]:
    """Even videos are fake."""
    random = np.random.default_rng(len(model))
    logits = random.normal(size=COUNT) + np.where(np.arange(COUNT) % 2, -1, 1)
    scores = 1 / (1 + np.exp(-logits))
    return [
        row(
            number,
            status="scored",
            score=float(score),
            label="fake" if score >= FAKE_FROM else "real" if score < REAL_BELOW else "uncertain",
            real_below=REAL_BELOW,
            fake_from=FAKE_FROM,
            model=model,
        )
        for number, score in enumerate(scores)
    ]


def truth() -> Truth:
    rows = tuple(
        TruthRow(path=f"{number}.mp4", label="real" if number % 2 else "fake", group=f"g{number // 3}")
        for number in range(COUNT)
    )
    return Truth(source="truth.csv", layout="truth.csv", folder="/nowhere", rows=rows)


def frames_file(folder: Path, scores: list[tuple[VideoResult, float]]) -> Path:
    values = (
        (result.path, result.model, 0, 0.0, 0, True, *[0.0] * 14, 0.0, 0.0, 1, 0.0, score) for result, score in scores
    )
    path = folder / "frames.csv"
    path.write_bytes(b"".join(_csv(values)))
    return path


def run(rows: list[VideoResult], frames: Path) -> Any:
    return evaluate(rows, truth(), frames=frames, resamples=FAST)


def test_a_video_of_many_alike_frames_tells_no_more_than_one(tmp_path: Path) -> None:
    rows = [*results(), *results("other")]
    alike = frames_file(tmp_path, [(result, result.score or 0.0) for result in rows for _ in range(7)])
    for detector in run(rows, alike).detectors:
        crops, videos = detector.frame_level, detector.overall
        assert (crops.fakes, crops.genuine) == (7 * videos.fakes, 7 * videos.genuine)
        assert (crops.fake_groups, crops.genuine_groups) == (videos.fake_groups, videos.genuine_groups)
        assert crops.coverage == 1.0
        for name, figure in videos.figures.items():
            for bound in ("value", "low", "high"):
                assert getattr(crops.figures[name], bound) == pytest.approx(getattr(figure, bound), abs=1e-9), name
        assert detector.notes == ()


def test_crops_have_their_own_scores_and_the_labels_and_thresholds_of_their_videos(tmp_path: Path) -> None:
    rows = results()
    random = np.random.default_rng(5)
    scores = [(result, float(random.random())) for result in rows for _ in range(1 + result.index % 4)]
    found = run(rows, frames_file(tmp_path, scores)).detectors[0].frame_level
    fake = [result.index % 2 == 0 for result, _ in scores]
    values = np.array([score for _, score in scores])
    assert found.figures["auc"].value == pytest.approx(roc_auc_score(fake, values), abs=1e-12)
    assert found.figures["auc"].low < found.figures["auc"].value < found.figures["auc"].high
    genuine = values[~np.array(fake)]
    assert found.figures["real_called_fake"].value == pytest.approx((genuine >= FAKE_FROM).mean())
    assert found.figures["real_called_real"].value == pytest.approx((genuine < REAL_BELOW).mean())
    assert (found.fakes, found.genuine) == (sum(fake), len(fake) - sum(fake))


def test_what_has_no_counterpart_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    rows = results()
    rows[0] = structs.replace(rows[0], path="./0.mp4")
    rows[7] = structs.replace(rows[7], status="no_face", score=None, label=None)
    scores = [(result, 0.5) for result in [*rows[:5], *rows[6:], row(99), *results("other")]]
    found = run(rows, frames_file(tmp_path, scores)).detectors[0]
    assert found.frame_level.fakes + found.frame_level.genuine == COUNT - 2
    assert found.notes == (f"1 scored video has no scores in {tmp_path / 'frames.csv'}.",)
    assert evaluate(rows, truth(), resamples=FAST).detectors[0].frame_level is None


def test_frames_of_another_scan_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"frames.csv has no scores of the labeled videos: give the per-frame file"):
        run(results(), frames_file(tmp_path, [(row(99), 0.5)]))


def test_the_table_of_figures_has_rows_of_crops(tmp_path: Path) -> None:
    rows = results()
    found = run(rows, frames_file(tmp_path, [(result, result.score or 0.0) for result in rows]))
    named = {cells[5]: cells[6] for cells in figure_rows(found) if cells[1] == "frame level" and cells[4] == "left out"}
    assert named["auc"] == found.detectors[0].overall.figures["auc"].value
