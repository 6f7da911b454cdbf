"""Detectors that are exported in half precision pass the parity check on real faces."""

from __future__ import annotations

import pytest

from deepscan.export import artifact
from deepscan.models.registry import find_detector
from tests.models.goldens import golden_network
from tests.runtime.tiny_detectors import ORIGIN

pytestmark = pytest.mark.slow

# The others take minutes each: other tests compare their graphs in float32, as of these, with the authors' answers.
DETECTORS = ["recce", "caddm-resnet34"]
FACES = 16


@pytest.mark.parametrize("name", DETECTORS)
def test_with_weights_by_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "PACKAGED_CROPS", FACES)
    made = artifact.make_artifact(
        golden_network(name), find_detector(name).spec, ORIGIN, artifact.ExportSettings(precision="fp16")
    )
    assert made.report.misses == ()
    assert made.report.parity.items == FACES
    assert made.artifact.manifest.precision == "fp16"
