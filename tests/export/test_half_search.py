from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from deepscan.export.half import emulated, halved
from deepscan.export.half_search import LARGEST_HALF, MOST_CALLS, bridged, half_precision, largest_values
from deepscan.export.onnx_from_module import onnx_from_module
from deepscan.export.parity.parity import BUDGETS, ConversionResult, Parity, compared, misses
from deepscan.export.parity.samples import Samples, packaged_samples
from deepscan.export.tensor_values import SlicedGraph
from deepscan.models.networks.ftcn import TimeTransformer
from deepscan.models.networks.hff import CrossAttention
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from deepscan.spec import DetectorSpec

WIDTH = 8
SPEC = find_detector("lite").spec
Edit = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass
class ParityCheck:
    """Compares graphs over pictures with a float32 graph, and counts how often it was asked."""

    samples: Samples
    reference: NDArray[np.float32]
    calls: int = 0

    def __call__(self, model: onnx.ModelProto) -> Parity:
        self.calls += 1
        return compared(self.reference, logits_of(model, self.samples.items), SPEC, self.samples)

    def convert(self, model: onnx.ModelProto) -> ConversionResult:
        """Convert, and check what is true of every conversion."""
        made = half_precision(model, self, self.samples.items)
        assert self.calls <= MOST_CALLS
        assert made.model.SerializeToString() == halved(GraphIndex(model), made.notes).SerializeToString()
        assert made.stand_in is not None
        assert made.stand_in.SerializeToString() == emulated(GraphIndex(model), made.notes).SerializeToString()
        onnx.checker.check_model(made.model, full_check=True)
        assert all(made.notes.values())
        return made


def logits_of(model: onnx.ModelProto, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = Session(model.SerializeToString(), source="a test's graph", device="cpu", threads=1)
    logits: NDArray[np.float32] = session.run(["logit"], {model.graph.input[0].name: items})[0]
    return logits


def check_for(model: onnx.ModelProto, *, count: int = 16, edit: Edit = lambda logits: logits) -> ParityCheck:
    """A check with pictures of noise; `edit` changes what is said to be right."""
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    items = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    names = tuple(f"picture {number}" for number in range(count))
    samples = Samples(items=items, sources=names, videos=names, fakes=(None,) * count)
    return ParityCheck(samples, edit(logits_of(model, items)))


def graph_of(middle: list[NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """A model from pixels [N, 8] through nodes that turn `p`, in 0..1, into `q`, to the mean of `q` and its score."""
    nodes = [
        node("Cast", "x", "floats", to=TensorProto.FLOAT),
        node("Mul", "floats scale", "p"),
        *middle,
        node("ReduceMean", "q last", "logit", keepdims=0),
        node("Sigmoid", "logit", "score"),
    ]
    values = {"scale": 1 / 255, "last": np.array([1]), **weights}
    held = [numpy_helper.from_array(array_of(value), name) for name, value in values.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", WIDTH])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("logit", "score")]
    graph = helper.make_graph(nodes, "g", given, results, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def array_of(value: Any) -> NDArray[Any]:
    """A scalar is float32."""
    return np.array(value, dtype=np.float32) if isinstance(value, float | int) else value


def node(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """A node named like its output."""
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def chain(count: int, start: str, end: str) -> list[NodeProto]:
    """Harmless nodes from one tensor to another."""
    names = [start, *(f"{end}{number}" for number in range(1, count)), end]
    return [node("Mul", f"{before} one", after) for before, after in itertools.pairwise(names)]


def test_a_graph_that_half_can_do_is_checked_once_and_only_the_score_stays() -> None:
    model = graph_of(chain(10, "p", "q"), {"one": 1})
    check = check_for(model)
    made = check.convert(model)
    assert list(made.notes) == ["score"]
    assert check.calls == 1
    assert "1 of 14 nodes in float32" in made.summary


def test_what_overflows_stays_in_float32_and_nothing_else() -> None:
    middle = [*chain(5, "p", "a"), node("Mul", "a large", "b"), node("Relu", "b", "c"), node("Div", "c large", "d")]
    model = graph_of([*middle, *chain(5, "d", "q")], {"one": 1, "large": 30000})
    check = check_for(model)
    made = check.convert(model)
    assert made.notes == dict.fromkeys("bcd", "values reach 2.9e+04") | {"score": made.notes["score"]}
    assert check.calls == 1
    assert not misses(
        check(emulated(GraphIndex(model), ["score"])), BUDGETS["fp16"]
    )  # within the budget here, but too near


@pytest.mark.parametrize(("large", "stays"), [(LARGEST_HALF / 4 - 10, False), (LARGEST_HALF / 4 + 10, True)])
def test_a_quarter_of_what_half_can_hold_is_near(large: float, stays: bool) -> None:
    model = graph_of([node("Mul", "p large", "a"), node("Div", "a large", "q")], {"large": large})
    check = check_for(model)
    check.samples.items[0] = 255
    assert {"a", "q"} <= check.convert(model).notes.keys() or not stays
    assert check.convert(model).notes.keys().isdisjoint({"a", "q"}) or stays


def test_a_weight_that_half_cannot_hold_keeps_its_node_in_float32_and_one_that_it_can_does_not() -> None:
    model = graph_of(
        [node("Div", "p huge", "a"), node("Mul", "a large", "b"), node("Mul", "b back", "q")],
        {"huge": 1e6, "large": 60000, "back": 1e6 / 60000},
    )
    made = check_for(model).convert(model)
    assert made.notes["a"] == "a weight is 1e+06"
    assert "b" not in made.notes or "weight" not in made.notes["b"]


def test_a_mean_whose_sum_overflows_stays_in_float32() -> None:
    model = graph_of([node("Mul", "p large", "q")], {"large": 12000})
    made = check_for(model, edit=lambda logits: logits).convert(model)
    assert made.notes["logit"].startswith("sums reach ")
    assert "q" not in made.notes


def test_what_half_rounds_too_coarsely_is_found(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    # Half has one number in eight between 8192 and 16384, so the sum forgets what was added to it.
    middle = [*chain(40, "p", "a"), node("Add", "a large", "b"), node("Sub", "b large", "c"), *chain(40, "c", "q")]
    model = graph_of(middle, {"one": 1, "large": 8192})
    check = check_for(model)
    made = check.convert(model)
    assert made.notes.keys() == {"b", "c", "score"}
    assert made.notes["b"].startswith("in float16 it changes scores by up to 0.")
    assert check.calls == len(caplog.messages) - 1 <= 18  # the first message is about values
    assert not misses(check(emulated(GraphIndex(model), made.notes)), BUDGETS["fp16"])


def test_two_places_that_hurt_are_found() -> None:
    middle = [
        *chain(20, "p", "a"),
        node("Add", "a large", "b"),
        node("Sub", "b large", "c"),
        *chain(30, "c", "d"),
        node("Sub", "d large", "e"),
        node("Add", "e large", "f"),
        *chain(20, "f", "q"),
    ]
    model = graph_of(middle, {"one": 1, "large": 8192})
    assert check_for(model).convert(model).notes.keys() == {"b", "c", "e", "f", "score"}


def test_data_movement_between_float32_nodes_stays_in_float32() -> None:
    middle = [
        *chain(9, "p", "a"),
        node("Add", "a large", "b"),
        node("Reshape", "b shape", "flat"),
        node("Reshape", "flat shape", "c"),
        node("Sub", "c large", "d"),
        *chain(9, "d", "q"),
    ]
    model = graph_of(middle, {"one": 1, "large": 8192, "shape": np.array([-1, WIDTH])})
    check = check_for(model)
    made = check.convert(model)
    assert made.notes.keys() == {"b", "flat", "c", "d", "score"}
    assert not misses(check(emulated(GraphIndex(model), made.notes)), BUDGETS["fp16"])


def test_pixels_go_straight_to_a_float32_node() -> None:
    graph = GraphIndex(graph_of([node("Relu", "p", "q")], {}))
    assert bridged(graph, ["p"]) == {"floats", "p"}
    assert bridged(graph, ["q"]) == {"q"}
    assert bridged(graph, ["p", "logit"]) == {"floats", "p", "q", "logit"}


def test_a_budget_that_cannot_be_held_gives_the_best_of_what_was_tried() -> None:
    middle = [*chain(20, "p", "a"), node("Add", "a large", "b"), node("Sub", "b large", "q")]
    model = graph_of(middle, {"one": 1, "large": 8192})
    check = check_for(model, edit=lambda logits: logits + np.float32(0.2))
    made = check.convert(model)
    plain = check(emulated(GraphIndex(model), ["score"])).max_difference
    best = check(emulated(GraphIndex(model), made.notes)).max_difference
    assert misses(check(emulated(GraphIndex(model), made.notes)), BUDGETS["fp16"])
    assert best < plain
    assert f"{best:.2g}" in made.summary
    assert any(item.name not in made.notes for item in model.graph.node)


def test_a_graph_that_never_passes_the_check_is_not_tried_forever(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    model = graph_of(chain(100, "p", "q"), {"one": 1.001})
    check = check_for(model, edit=lambda logits: np.full_like(logits, np.nan))
    made = check.convert(model)
    assert made.notes.keys() < {item.name for item in model.graph.node}
    assert "nan" in caplog.messages[-1]


def test_many_small_errors_end_within_the_budget_and_the_limit() -> None:
    model = graph_of(chain(200, "p", "q"), {"one": 1.00048})
    check = check_for(model)
    made = check.convert(model)
    assert not misses(check(emulated(GraphIndex(model), made.notes)), BUDGETS["fp16"])
    assert 1 < len(made.notes) < 190


class Head(nn.Module):
    """Turns pixels into what a part of a network takes, and its answer into a logit and a score."""

    def __init__(self, part: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.part = part
        self.shape = shape

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, ...] -> logit [N], score [N]."""
        x = (pixels.to(torch.float32) / 127.5 - 1).reshape(-1, *self.shape)
        logit = self.part(x)
        return logit, torch.sigmoid(logit)


class Attended(nn.Module):
    """HFF's attention between a map and its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = CrossAttention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 1, 16, 16] -> logit [N]."""
        x = x.expand(-1, 728, -1, -1)
        first, second = self.attention(x, x.flip(3))
        logit: torch.Tensor = 4 * (first - second)[:, :7, 5:].mean((1, 2, 3))
        return logit


def test_hff_attention_stays_in_float32_where_its_energies_overflow() -> None:
    torch.manual_seed(0)
    part = Attended()
    with torch.no_grad():
        for parameter in (part.attention.gamma1, part.attention.gamma2):
            parameter.fill_(0.5)
        for layer in (part.attention.key_conv1, part.attention.key_conv2):
            layer.weight.mul_(3000)
        for linear in (part.attention.linear1, part.attention.linear2):
            linear.weight.mul_(1e-5)
    model = onnx_from_module(Head(part, (1, 16, 16)), (16, 16), input_name="faces")
    check = check_for(model)
    assert not math.isfinite(check(emulated(GraphIndex(model), ())).max_difference)
    made = check.convert(model)
    assert not misses(check(emulated(GraphIndex(model), made.notes)), BUDGETS["fp16"])
    inside = {item.name: item.op_type for item in model.graph.node if item.name in made.notes}
    by_values = [inside[name] for name, why in made.notes.items() if why.startswith("values reach")]
    assert by_values == ["MatMul", "MatMul", "Transpose", "MatMul"]  # the energies and the two layers that take them


def test_ftcn_transformer_stays_in_float32_where_its_feed_forward_layer_overflows() -> None:
    torch.manual_seed(0)
    part = TimeTransformer(steps=4, channels=16)
    layers = part.get_submodule("transformer.layers.0.1.fn.fn.net")
    with torch.no_grad():
        layers.get_parameter("0.weight").mul_(1e5)
        layers.get_parameter("3.weight").mul_(1e-5)
    model = onnx_from_module(Head(part, (4, 16)), (4, 16), input_name="faces")
    check = check_for(model)
    assert misses(check(emulated(GraphIndex(model), ())), BUDGETS["fp16"])
    made = check.convert(model)
    assert not misses(check(emulated(GraphIndex(model), made.notes)), BUDGETS["fp16"])
    kinds = {item.op_type for item in model.graph.node if made.notes.get(item.name, "").startswith("values reach")}
    assert {"MatMul", "Erf"} & kinds
    assert "Softmax" not in kinds
    assert len(made.notes) < len(model.graph.node) / 2


def test_lite_is_within_the_budget_in_half_on_real_crops() -> None:
    spec: DetectorSpec = load_artifact("lite").manifest.spec
    model = onnx.load_model_from_string(load_artifact("lite").model)
    samples = packaged_samples(spec, count=8)
    check = ParityCheck(samples, logits_of(model, samples.items))
    made = check.convert(model)
    assert check.calls == 1
    assert len(made.notes) <= 3
    assert 0 < check(made.stand_in or made.model).max_difference <= 0.01


def test_what_onnx_has_in_float32_only_is_noted() -> None:
    weights = {"to_boxes": np.array([1, -1, 4]), "to_scores": np.array([1, 1, -1]), "third": np.array([2])}
    middle = [
        node("Reshape", "p to_boxes", "boxes"),
        node("ReduceMax", "boxes third", "best", keepdims=0),
        node("Reshape", "best to_scores", "scores"),
        node("NonMaxSuppression", "boxes scores", "picked"),
        node("Cast", "picked", "unused", to=TensorProto.FLOAT),
        node("Shape", "p", "shape"),
        node("Cast", "shape", "sizes", to=TensorProto.FLOAT),
        node("ReduceMax", "sizes", "size", keepdims=0),
        node("Mul", "p size", "q"),
    ]
    model = graph_of(middle, weights)
    made = check_for(model).convert(model)
    assert made.notes == {
        "picked": "ONNX has no NonMaxSuppression in float16",
        "score": "needs only an output of the graph, which is float32",
    }


def test_largest_values_are_those_of_all_items_however_many_runs_it_takes() -> None:
    model = graph_of([node("Mul", "p large", "a"), node("Neg", "a", "b"), node("Exp", "a", "q")], {"large": 1000})
    items = np.zeros((3, WIDTH), dtype=np.uint8)
    items[1, 2] = 51
    expected = {"floats": 51, "p": 0.2, "a": 200, "b": 200, "q": math.inf, "logit": math.inf, "score": 1}
    index = GraphIndex(model)
    assert largest_values(index, items) == pytest.approx(expected)
    for slice_bytes in (1, 3 * 4 * WIDTH):
        extremes = SlicedGraph(index, index.floats, batch=3, slice_bytes=slice_bytes).extremes([items])
        assert {name: found.magnitude for name, found in extremes.items()} == pytest.approx(expected)
