from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deepscan
from deepscan.runtime.artefacts import load_artefact
from deepscan.runtime.onnxruntime_backend import OnnxRuntimeBackend
from tests.footage import ASTRONAUT

pytestmark = pytest.mark.gpu

GOLDEN = Path(__file__).parent.parent / "models" / "lite_golden.npz"


def test_the_embedded_detector_gives_its_golden_logits_on_cuda() -> None:
    backend = OnnxRuntimeBackend(load_artefact("lite"), device="cuda", threads=1, precision="fp32")
    with np.load(GOLDEN) as golden:
        assert backend.logits(golden["faces"]) == pytest.approx(golden["logit"], abs=2e-3)
    assert backend.name == "onnxruntime-cuda"


def test_a_scan_on_cuda_gives_the_score_of_the_cpu_and_says_where_it_ran() -> None:
    (on_cpu,) = deepscan.scan(ASTRONAUT, frames=4, device="cpu")
    (on_cuda,) = deepscan.scan(ASTRONAUT, frames=4, device="cuda")
    assert on_cuda.score == pytest.approx(on_cpu.score, abs=0.01)
    assert (on_cpu.backend, on_cuda.backend) == ("onnxruntime-cpu", "onnxruntime-cuda")
