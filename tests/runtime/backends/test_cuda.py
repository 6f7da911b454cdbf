from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import deepscan
from deepscan.errors import ModelError
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from tests.footage import ASTRONAUT
from tests.runtime.graphs import determinant_artifact

pytestmark = pytest.mark.gpu

GOLDEN = Path(__file__).parents[2] / "models" / "lite_golden.npz"


def test_the_embedded_detector_gives_its_golden_logits_in_honest_float32() -> None:
    """With TF32, which is cuDNN's default, they would differ by some 1e-3."""
    backend = OnnxRuntimeBackend(load_artifact("lite"), device="cuda", threads=1, precision="fp32")
    with np.load(GOLDEN) as golden, closing(backend):
        assert backend.logits(golden["faces"]) == pytest.approx(golden["logit"], abs=2e-4)
    assert backend.name == "onnxruntime-cuda"


def test_batches_of_any_size_give_the_same_whichever_size_ran_between() -> None:
    with np.load(GOLDEN) as golden:
        faces, logits = np.resize(golden["faces"], (9, 224, 224, 3)), np.resize(golden["logit"], 9)
    with closing(OnnxRuntimeBackend(load_artifact("lite"), device="cuda", threads=1, precision="fp32")) as backend:
        for _ in range(3):
            for count in (1, 3, 9, 4, 2, 8):
                assert backend.logits(faces[-count:]) == pytest.approx(logits[-count:], abs=2e-4)


def test_a_graph_of_which_cuda_computes_only_a_part_is_refused() -> None:
    with pytest.raises(ModelError, match="is not a model that ONNX Runtime can run on cuda"):
        OnnxRuntimeBackend(determinant_artifact(), device="cuda", threads=1, precision="fp32")


def test_a_scan_on_cuda_gives_the_score_of_the_cpu_and_says_where_it_ran() -> None:
    (on_cpu,) = deepscan.scan(ASTRONAUT, frames=4, device="cpu", backend="onnxruntime")
    (on_cuda,) = deepscan.scan(ASTRONAUT, frames=4, device="cuda", backend="onnxruntime")
    assert on_cuda.score == pytest.approx(on_cpu.score, abs=0.01)
    assert (on_cpu.backend, on_cuda.backend) == ("onnxruntime-cpu", "onnxruntime-cuda")
