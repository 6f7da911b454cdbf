"""The one trained detector that comes with the package, in 8 bits, on real faces; and what runtimes make of it."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from deepscan.calibration.quantize import quantized
from deepscan.export.parity.parity import BUDGETS, ConversionResult, Parity, compared
from deepscan.export.parity.samples import Samples, packaged_samples
from deepscan.export.simplify import folded_batch_norm
from deepscan.runtime.artifacts.artifacts import Activations, load_artifact
from deepscan.runtime.backends.sessions import Session

CROPS = 48
LITE = load_artifact("lite")
SPEC = LITE.manifest.spec


def logits(model: onnx.ModelProto, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = Session(model.SerializeToString(), source="lite", device="cpu", threads=2)
    return np.concatenate(
        [session.run(["logit"], {"faces": items[start : start + 8]})[0] for start in range(0, len(items), 8)]
    )


@cache
def made(activations: Activations) -> tuple[ConversionResult, Samples, NDArray[np.float32]]:
    """Quantize with every other crop; return the result, the crops in between and the logits they should have."""
    samples = packaged_samples(SPEC, count=CROPS)
    held = samples.items[1::2]
    count = len(held)
    held_out = Samples(held, samples.sources[1::2], samples.videos[1::2], (None,) * count)
    original = folded_batch_norm(onnx.load_model_from_string(LITE.model))
    reference = logits(original, held)

    def check(model: onnx.ModelProto) -> Parity:
        return compared(reference, logits(model, held), SPEC, held_out)

    converted = quantized(
        original,
        check,
        items=samples.items[::2],
        method="percentile",
        activations=activations,
        seed=0,
    )
    return converted, held_out, reference


@pytest.mark.parametrize("activations", ["affine", pytest.param("symmetric", marks=pytest.mark.slow)])
def test_scores_of_real_faces_hold_with_few_nodes_left_out(activations: Activations) -> None:
    converted, held_out, reference = made(activations)
    parity = compared(reference, logits(converted.model, held_out.items), SPEC, held_out)
    limit = BUDGETS["int8"].mean_difference
    assert limit is not None
    assert 0 < parity.mean_difference <= limit
    assert parity.rank_correlation is not None
    assert parity.rank_correlation > 0.97
    assert len(converted.notes) <= 8
    onnx.checker.check_model(converted.model, full_check=True)


def test_onnx_runtime_takes_integer_kernels(tmp_path: Path) -> None:
    converted, _, _ = made("affine")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "really-run.onnx")
    onnxruntime.InferenceSession(converted.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "really-run.onnx").graph.node)
    # What is left out stays in float32, and so may the layer before it; nothing else.
    assert ran["QLinearConv"] >= 64 - 2 * len(converted.notes)
    assert ran["QLinearAdd"] >= 14 - 2 * len(converted.notes)


def test_openvino_takes_integer_kernels_and_gives_the_same_scores() -> None:
    openvino = pytest.importorskip("openvino")
    converted, held_out, _ = made("affine")
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(converted.model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
    ran = Counter(facts["runtimePrecision"].value for facts in layers if facts["layerType"].value == "Convolution")
    assert ran["u8"] + ran["i8"] >= 64 - len(converted.notes)
    values = compiled({"faces": held_out.items})["logit"]
    theirs = compared(logits(converted.model, held_out.items), values, SPEC, held_out)
    assert theirs.mean_difference < 0.02
