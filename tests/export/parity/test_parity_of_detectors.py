"""Detectors that are exported in float32 and in half precision pass the parity check on real faces."""

from __future__ import annotations

import pytest

from deepscan.export.artifact import ExportSettings, make_artifact
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import Precision
from tests.models.goldens import golden
from tests.runtime.tiny_detectors import ORIGIN

pytestmark = pytest.mark.slow

# The others take minutes each: other tests compare their graphs with the authors' answers.
DETECTORS = ["recce", "caddm-resnet34"]
PRECISIONS: list[Precision] = ["fp32", "fp16"]


@pytest.mark.parametrize("name", DETECTORS)
def test_with_weights_by_recipe(name: str) -> None:
    network = find_detector(name).build().eval()
    network.load_state_dict(golden(name.replace("-", "_")).tensors())
    for precision in PRECISIONS:
        made = make_artifact(network, find_detector(name).spec, ORIGIN, ExportSettings(precision=precision))
        assert made.report.misses == ()
        assert made.report.parity.items >= 4
        assert made.artifact.manifest.precision == precision
