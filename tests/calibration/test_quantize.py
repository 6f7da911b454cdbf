from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from deepscan.calibration.quantize import quantized
from deepscan.calibration.sensitivity import MOST_CHECKS
from deepscan.errors import ModelError, UsageError
from deepscan.export.parity.parity import BUDGETS, ConversionResult, Parity, compared
from deepscan.export.parity.samples import Samples
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod
from deepscan.runtime.backends.sessions import Session
from tests.calibration.networks import Network, faces, residual_network

SPEC = find_detector("hff").spec
LIMIT = BUDGETS["int8"].mean_difference or 0.0
methods: list[CalibrationMethod] = ["minmax", "percentile", "entropy"]
schemes: list[Activations] = ["affine", "symmetric"]


def logits(model: onnx.ModelProto, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = Session(model.SerializeToString(), source="graph", device="cpu", threads=1)
    (values,) = session.run(["logit"], {"faces": items})
    return values


class Check:
    """Compares with the float32 graph over other faces than those of the calibration."""

    def __init__(self, original: onnx.ModelProto) -> None:
        items = faces(24, seed=77)
        count = len(items)
        self.samples = Samples(items, ("face",) * count, ("video",) * count, (None,) * count)
        self.reference = logits(original, items)
        self.seen: list[Parity] = []

    def __call__(self, model: onnx.ModelProto) -> Parity:
        self.seen.append(compared(self.reference, logits(model, self.samples.items), SPEC, self.samples))
        return self.seen[-1]


def converted(
    model: onnx.ModelProto,
    check: Callable[[onnx.ModelProto], Parity],
    *,
    method: CalibrationMethod = "percentile",
    activations: Activations = "affine",
    seed: int = 0,
) -> ConversionResult:
    return quantized(model, check, items=faces(20), method=method, activations=activations, seed=seed)


def network_with_huge_weights(worst: str = "three") -> onnx.ModelProto:
    """Four layers; one of them multiplies a channel that is always zero by a thousand.

    That costs nothing in float32, but in 8 bits the step of its weights is so large that all others become zero.
    """
    net = Network(seed=5)
    last = net.pixels()
    before = ""
    for name, channels in (("one", 3), ("two", 8), ("three", 8), ("four", 8)):
        last = net.convolution(last, name, (8, channels, 3, 3))
        if name == worst:
            net.constants[f"{before}.weight"][0] = 0
            net.constants[f"{before}.bias"][0] = 0
            net.constants[f"{name}.weight"][:, 0] = 1000
        before = name
    return net.model(last, 8)


def network_with_huge_activations() -> onnx.ModelProto:
    """Four layers; one channel between the second and the third is a thousand times as large as the others."""
    net = Network(seed=6)
    last = net.convolution(net.pixels(), "one", (8, 3, 3, 3))
    last = net.convolution(last, "two", (8, 8, 3, 3))
    net.constants["two.bias"][0] = 1000
    last = net.convolution(last, "three", (8, 8, 3, 3))
    net.constants["three.weight"][:, 0] = 0
    return net.model(net.convolution(last, "four", (8, 8, 3, 3)), 8)


@pytest.mark.parametrize("activations", schemes)
@pytest.mark.parametrize("method", methods)
def test_a_harmless_network_is_quantized_as_a_whole(
    method: CalibrationMethod, activations: Activations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    model = residual_network()
    check = Check(model)
    made = converted(model, check, method=method, activations=activations)
    onnx.checker.check_model(made.model, full_check=True)
    assert made.notes == {}
    assert 0 < check.seen[0].mean_difference <= LIMIT
    assert len(check.seen) == 1
    assert f"int8 ({activations}, {method} over 20 items), 8 of 8 nodes, " in made.summary
    assert f"{check.seen[0].mean_difference:.2g}" in made.summary
    assert [line.split(" ")[0] for line in caplog.messages] == ["finding", "all"]
    # The weights are really bytes.
    assert len(made.model.SerializeToString()) != len(model.SerializeToString())
    assert {
        tensor.data_type for tensor in made.model.graph.initializer if tensor.name.endswith("weights:integers")
    } == {onnx.TensorProto.INT8}


@pytest.mark.parametrize("activations", schemes)
@pytest.mark.parametrize(
    ("model", "worst", "reads"),
    [
        (network_with_huge_weights("two"), "two", "one.relu"),
        (network_with_huge_weights("three"), "three", "two.relu"),
        (network_with_huge_weights("four"), "four", "three.relu"),
        (network_with_huge_activations(), "three", "two.relu"),
    ],
    ids=["weights-two", "weights-three", "weights-four", "activations-three"],
)
def test_exactly_the_layer_that_hurts_is_left_out(
    model: onnx.ModelProto, worst: str, reads: str, activations: Activations
) -> None:
    check = Check(model)
    made = converted(model, check, method="minmax", activations=activations)
    assert check.seen[0].mean_difference > LIMIT
    assert check.seen[-1].mean_difference <= LIMIT
    assert list(made.notes) == [worst]
    assert "moves the logit by" in made.notes[worst]
    assert "5 of 6 nodes" in made.summary
    kept = next(node for node in made.model.graph.node if node.name == worst)
    assert list(kept.input) == [reads, f"{worst}.weight", f"{worst}.bias"]
    assert check(made.model).mean_difference == check.seen[-2].mean_difference


def test_where_nothing_helps_everything_is_quantized_and_the_summary_says_so() -> None:
    model = residual_network()
    calls = []

    def never(_: onnx.ModelProto) -> Parity:
        calls.append(0)
        nothing = dict.fromkeys(["max_difference", "mean_difference", "max_logit_difference"], 0.5)
        return Parity(items=1, rank_correlation=None, flips=(), auc_reference=None, auc=None, worst=(), **nothing)

    made = converted(model, never)
    assert "no choice of nodes would keep it below 0.02" in made.summary
    assert "8 of 8 nodes" in made.summary
    assert made.notes == {}
    assert len(calls) <= MOST_CHECKS
    assert converted(model, Check(model)).model == made.model


def test_the_same_seed_gives_the_same_bytes() -> None:
    model = network_with_huge_weights()
    first, second = (converted(model, Check(model), seed=3) for _ in range(2))
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.notes == second.notes


def test_what_is_given_stays_as_it_is() -> None:
    model = residual_network()
    before = model.SerializeToString(deterministic=True)
    converted(model, Check(model))
    assert model.SerializeToString(deterministic=True) == before


def test_without_faces_it_says_what_to_give() -> None:
    model = residual_network()
    with pytest.raises(UsageError, match=r"--calibration-data FOLDER"):
        quantized(model, Check(model), items=faces(0), method="minmax", activations="affine", seed=0)


def test_a_graph_without_layers_is_refused() -> None:
    net = Network()
    net.pixels()
    net.add("Relu", ["pixels"], "relu")
    net.add("ReduceMax", ["relu", net.constant("places", np.array([1, 2, 3]))], "logit", keepdims=0)
    model = net.finished()
    with pytest.raises(ModelError, match=r"no layer that could compute in 8 bits"):
        converted(model, Check(model))
