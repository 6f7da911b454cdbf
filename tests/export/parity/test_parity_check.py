from __future__ import annotations

import hashlib
import json
import logging
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from deepscan.export import artifact
from deepscan.export.artifact import ExportResult, ExportSettings, Quantization, make_artifact, store_artifact
from deepscan.export.forms import graph_of
from deepscan.export.parity.parity import BUDGETS, ConversionResult, ParityFunction
from deepscan.export.parity.parity_check import parity_check
from deepscan.export.parity.parity_report import ParityMiss, ParityReport, readable
from deepscan.export.parity.samples import Samples
from deepscan.runtime.artifacts.artifacts import CalibrationRecord, load_artifact
from tests.runtime.tiny_detectors import ORIGIN, TINY_FRAME, Brightness

log = logging.getLogger("deepscan.tests")
RECORD = CalibrationRecord(method="minmax", activations="affine", items=1, sha256="0" * 64, seed=0, kept=())


class Louder(nn.Module):
    """Adds to the logit of `Brightness`."""

    def __init__(self, more: float) -> None:
        super().__init__()
        self.brightness = Brightness()
        self.more = more

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N]."""
        logit: torch.Tensor = self.brightness(pixels) + self.more
        return logit


def samples_of(items: NDArray[np.uint8]) -> Samples:
    sources = tuple(f"video|{place} at 0.0 s" for place in range(len(items)))
    return Samples(
        items=items,
        sources=sources,
        videos=sources,
        fakes=tuple(place % 2 == 1 for place in range(len(items))),
    )


def levels(count: int) -> Samples:
    """Return gray crops from black to white."""
    return samples_of(
        np.stack([np.full((32, 32, 3), value, dtype=np.uint8) for value in np.linspace(0, 255, count).astype(int)])
    )


@pytest.fixture(autouse=True)
def _few_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the video that comes with the package, a few faces are enough besides those that are given."""
    monkeypatch.setattr(artifact, "PACKAGED_CROPS", 4)


def graph(more: float) -> onnx.ModelProto:
    return onnx.load_model_from_string(traced(more))


@cache
def traced(more: float) -> bytes:
    model: bytes = graph_of(Louder(more), TINY_FRAME).SerializeToString()
    return model


def swapped(more: float) -> Quantization:
    """Return a conversion that makes every logit larger by `more`."""

    def convert(_: onnx.ModelProto, check: ParityFunction) -> ConversionResult:
        log.info("%.3f", check(graph(more)).max_difference)
        return ConversionResult(graph(more), {"some node": "it hurts | much"}, "made louder")

    return Quantization(convert, RECORD)


def made(more: float, *, accept: bool = False) -> ExportResult:
    order = ExportSettings(precision="int8", quantization=swapped(more), samples=levels(30), accept_parity_loss=accept)
    return make_artifact(Brightness(), TINY_FRAME, ORIGIN, order)


def test_the_parity_check_measures_how_far_a_graph_is_from_the_network() -> None:
    samples = levels(19)
    check = parity_check(Brightness(), TINY_FRAME, samples)
    gray = samples.items[:, 0, 0, 0] / 127.5 - 1
    np.testing.assert_allclose(check.reference, 4 * gray, atol=1e-5)
    same, louder = check(graph(0.0)), check(graph(0.25))
    assert same.max_difference < 1e-6
    assert louder.max_logit_difference == pytest.approx(0.25, abs=1e-4)
    scores = [TINY_FRAME.calibration.score(value) for value in check.reference.tolist()]
    moved = [TINY_FRAME.calibration.score(value + 0.25) for value in check.reference.tolist()]
    assert louder.max_difference == pytest.approx(np.abs(np.subtract(moved, scores)).max(), abs=1e-5)
    assert louder.rank_correlation == pytest.approx(1.0)
    assert louder.auc == louder.auc_reference


def test_an_artifact_within_the_budget_is_recorded_with_what_was_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    exported = made(0.05)
    assert exported.artifact.manifest.parity_loss == ""
    assert exported.artifact.manifest.calibration == msgspec.structs.replace(RECORD, kept=("some node",))
    assert exported.report.misses == ()
    assert not exported.report.accepted
    assert exported.report.parity.items > 30  # those that come with the package are looked at, too
    assert [title for title, _ in exported.steps][-1] == "comparing with the original"
    assert "comparing with the original" in caplog.messages


def test_a_miss_fails_with_the_worst_cases() -> None:
    with pytest.raises(
        ParityMiss, match=r"tiny-frame-int8\.onnx differs too much .* --accept-parity-loss\.$"
    ) as caught:
        made(1.0)
    report = caught.value.report
    assert len(report.parity.worst) == 10
    text = readable(report)
    assert "**over the budget** (the mean difference" in text
    worst = report.parity.worst[0]
    assert f"| {worst.reference:.6f} | {worst.score:.6f} |" in text
    assert abs(worst.score - worst.reference) == pytest.approx(report.parity.max_difference)


def test_an_accepted_miss_is_in_the_manifest_and_in_the_report(tmp_path: Path) -> None:
    exported = made(1.0, accept=True)
    path = store_artifact(exported.artifact, tmp_path, report=exported.report)
    manifest = load_artifact(str(path)).manifest
    assert manifest.parity_loss.startswith("the mean difference of the scores is 0.")
    kept = msgspec.json.decode((tmp_path / "tiny-frame-int8.parity.json").read_bytes(), type=ParityReport)
    assert kept == exported.report
    assert kept.accepted
    assert kept.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    text = (tmp_path / "tiny-frame-int8.parity.md").read_text()
    assert "which was accepted" in text
    assert "| `some node` | it hurts \\| much |" in text
    assert json.loads((tmp_path / "tiny-frame-int8.manifest.json").read_text())["parity_loss"] == manifest.parity_loss


def test_float32_has_the_strictest_budget() -> None:
    budget = BUDGETS["fp32"]
    exported = make_artifact(Brightness(), TINY_FRAME, ORIGIN, ExportSettings(samples=levels(5)))
    assert exported.report.parity.max_difference <= (budget.max_difference or 0)
    assert exported.report.budget == budget
    assert exported.artifact.manifest.file == "tiny-frame.onnx"
