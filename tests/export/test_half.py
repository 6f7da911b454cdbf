from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from deepscan.export.half import emulated, halved, store_exact_halves
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session

WIDTH = 4
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}


def graph_of(nodes: list[NodeProto], weights: dict[str, Any], outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    """A model from float32 `x` [N, 4] to float32 outputs."""
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    given_x = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", given_x, results, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = shape_inference.infer_shapes(model, strict_mode=True)
    del model.graph.value_info[:]
    return model


def node(kind: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """A node named like its output."""
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values[0] if len(values) == 1 else values, dtype=np.float32)


def run(model: onnx.ModelProto, x: NDArray[Any]) -> list[NDArray[Any]]:
    session = Session(model.SerializeToString(), source="a test's graph", device="cpu", threads=1)
    return session.run(None, {model.graph.input[0].name: x})


def types_in(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def check_typing(model: onnx.ModelProto) -> None:
    """Valid ONNX; one floating-point type for what goes into a node; no cast that is not needed."""
    onnx.checker.check_model(model, full_check=True)
    types = types_in(model)
    outputs = {output.name for output in model.graph.output}
    read = {name for item in model.graph.node for name in item.input} | outputs
    casts = set()
    for item in model.graph.node:
        if item.op_type != "Resize":  # whose scales are always float32
            assert len({types[name] for name in item.input if name} & FLOATS) <= 1, item
        if item.op_type == "Cast":
            cast = (item.input[0], types[item.output[0]])
            assert cast not in casts, "a tensor is cast twice"
            assert types[item.input[0]] != types[item.output[0]], "a cast does nothing"
            assert set(item.output) <= read, "a cast's result is not used"
            casts.add(cast)


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(item.op_type for item in model.graph.node)


def test_all_is_half_but_the_inputs_and_outputs() -> None:
    model = graph_of([node("Mul", "x w", "a"), node("Add", "a b", "y")], {"w": f32(0.1), "b": f32(1)})
    half = halved(GraphIndex(model), ())
    check_typing(half)
    types = types_in(half)
    assert (types["x"], types["a"], types["w"], types["b"], types["y"]) == (1, 10, 10, 10, 1)
    assert kinds(half) == {"Mul": 1, "Add": 1, "Cast": 2}
    assert numpy_helper.to_array(half.graph.initializer[0]) == np.float16(0.1)
    assert [item.name for item in half.graph.node if item.op_type != "Cast"] == ["a", "y"]


def test_a_graph_whose_nodes_are_all_in_float32_is_unchanged() -> None:
    model = graph_of([node("Mul", "x w", "a"), node("Add", "a w", "y")], {"w": f32(0.1)})
    for made in (halved(GraphIndex(model), ["a", "y"]), emulated(GraphIndex(model), ["a", "y"])):
        assert made.graph == model.graph


def test_a_tensor_is_cast_once_for_all_that_read_it_and_a_weight_stored_in_each_type_that_is_used() -> None:
    nodes = [
        node("Mul", "x w", "a"),
        node("Mul", "a w", "b"),
        node("Mul", "a w", "c"),
        node("Mul", "a v", "d"),
        node("Sum", "b c d", "y"),
    ]
    model = graph_of(nodes, {"w": f32(0.1), "v": f32(0.3)})
    half = halved(GraphIndex(model), ["b", "c", "y"])
    check_typing(half)
    casts = [(item.input[0], item.output[0]) for item in half.graph.node if item.op_type == "Cast"]
    assert casts == [("x", "x.half"), ("a", "a.float"), ("d", "d.float")]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    assert {name: value.dtype for name, value in stored.items()} == {"w": "f4", "w.half": "f2", "v": "f2"}
    assert stored["w"] == np.float32(0.1)
    assert stored["w.half"] == np.float16(0.1)


def test_an_output_that_half_nodes_read_too_is_cast_for_the_outside_only() -> None:
    model = graph_of([node("Mul", "x w", "logit"), node("Mul", "logit w", "y")], {"w": f32(2)}, ("logit", "y"))
    half = halved(GraphIndex(model), ())
    check_typing(half)
    assert kinds(half) == {"Mul": 2, "Cast": 3}
    assert [list(item.input) for item in half.graph.node if item.op_type == "Mul"] == [
        ["x.half", "w"],
        ["logit.half", "w"],
    ]


def test_float32_behind_an_output_uses_the_output() -> None:
    model = graph_of([node("Mul", "x w", "logit"), node("Mul", "logit w", "y")], {"w": f32(2)}, ("logit", "y"))
    half = halved(GraphIndex(model), ["y"])
    check_typing(half)
    assert kinds(half) == {"Mul": 2, "Cast": 2}
    assert list(half.graph.node[-1].input) == ["logit", "w"]


def test_weights_that_were_stored_as_half_are_halves_again() -> None:
    model = graph_of([node("Mul", "x w", "a"), node("Mul", "a w", "y")], {"w": f32(0.5)})
    expected = {fp32_nodes: halved(GraphIndex(model), fp32_nodes).graph for fp32_nodes in ((), ("a",), ("a", "y"))}
    assert store_exact_halves(model) == 1
    for fp32_nodes, graph in expected.items():
        assert halved(GraphIndex(model), fp32_nodes).graph == graph


@pytest.mark.parametrize("attributes", [{"value": numpy_helper.from_array(f32(0.1))}, {"value_float": 0.1}])
def test_constants_are_stored_like_weights(attributes: dict[str, Any]) -> None:
    model = graph_of([node("Constant", "", "c", **attributes), node("Mul", "x c", "y")], {})
    half = halved(GraphIndex(model), ())
    check_typing(half)
    assert kinds(half) == {"Mul": 1, "Cast": 2}
    assert numpy_helper.to_array(half.graph.initializer[0]) == np.float16(0.1)


def test_what_must_not_be_half_is_not() -> None:
    nodes = [
        node("Unsqueeze", "x axes", "p"),
        node("Pad", "p pads value", "q", mode="constant"),
        node("Clip", "q low high", "r"),
        node("Resize", "r  scales", "s", mode="nearest"),
        node("Shape", "s", "shape"),
        node("Cast", "shape", "sizes", to=TensorProto.FLOAT),
        node("ReduceMax", "s axes", "t", keepdims=0),
        node("ReduceSum", "sizes", "total", keepdims=0),
        node("Div", "t total", "y"),
    ]
    weights = {
        "axes": np.array([1]),
        "pads": np.array([0, 0, 1, 0, 0, 1]),
        "value": f32(0.3),
        "low": f32(-2),
        "high": f32(2),
        "scales": f32(1, 1, 2),
    }
    nodes[3].input[:] = ["r", "", "scales"]
    model = graph_of(nodes, weights)
    half = halved(GraphIndex(model), ())
    check_typing(half)
    types = types_in(half)
    assert [types[name] for name in weights] == [7, 7, 10, 10, 10, 1]
    assert [types[name] for name in ("r", "s", "shape", "sizes", "total", "y")] == [10, 10, 7, 10, 10, 1]
    assert kinds(half)["Cast"] == 3  # in, out, and the graph's own, which now gives half
    x = f32(0.1, 1, 3, -1).reshape(1, WIDTH)
    for made in (half, emulated(GraphIndex(model), ())):
        np.testing.assert_allclose(run(made, x)[0], run(model, x)[0], rtol=1e-3)


def test_an_operator_that_onnx_has_in_float32_only_stays_so() -> None:
    nodes = [
        node("Mul", "x w", "a"),
        node("Reshape", "a to_boxes", "boxes"),
        node("Reshape", "a to_scores", "scores"),
        node("NonMaxSuppression", "boxes scores", "picked"),
        node("Cast", "picked", "y", to=TensorProto.FLOAT),
    ]
    weights = {"w": f32(1), "to_boxes": np.array([1, -1, 4]), "to_scores": np.array([1, 1, -1])}
    half = halved(GraphIndex(graph_of(nodes, weights)), ())
    check_typing(half)
    types = types_in(half)
    assert types["boxes"] == TensorProto.FLOAT16
    assert types["boxes.float"] == TensorProto.FLOAT


def test_a_shape_is_read_off_a_tensor_in_whatever_type_it_is_there() -> None:
    nodes = [
        node("Mul", "x w", "a"),
        node("Shape", "a", "shape"),
        node("Cast", "shape", "sizes", to=TensorProto.FLOAT),
        node("ReduceMax", "sizes", "size", keepdims=0),
        node("Mul", "a size", "y"),
    ]
    half = halved(GraphIndex(graph_of(nodes, {"w": f32(0.1)})), ["a", "y"])
    check_typing(half)
    assert [(item.op_type, item.input[0]) for item in half.graph.node] == [
        ("Mul", "x"),
        ("Shape", "a"),
        ("Cast", "shape"),
        ("ReduceMax", "sizes"),
        ("Cast", "size"),
        ("Mul", "a"),
    ]


def test_pixels_become_half_at_once() -> None:
    model = graph_of([node("Cast", "x", "p", to=TensorProto.FLOAT), node("Mul", "p w", "y")], {"w": f32(0.1)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    half = halved(GraphIndex(model), ())
    check_typing(half)
    assert [item.op_type for item in half.graph.node] == ["Cast", "Mul", "Cast"]
    assert types_in(half)["p"] == TensorProto.FLOAT16
    x = np.array([[0, 1, 128, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(run(emulated(GraphIndex(model), ()), x)[0], x.astype(np.float16) * np.float16(0.1))


def overflowing() -> onnx.ModelProto:
    return graph_of([node("Mul", "x k", "a"), node("Div", "a k", "y")], {"k": f32(1000)})


def test_the_emulation_overflows_where_half_does() -> None:
    x = f32(1, 64, 66, -1000).reshape(1, WIDTH)
    np.testing.assert_array_equal(
        run(emulated(GraphIndex(overflowing()), ()), x)[0], f32(1, 64, np.inf, -np.inf)[np.newaxis]
    )
    np.testing.assert_array_equal(
        run(emulated(GraphIndex(overflowing()), ["y"]), x)[0], f32(1, 64, np.inf, -np.inf)[np.newaxis]
    )
    np.testing.assert_array_equal(run(emulated(GraphIndex(overflowing()), ["a", "y"]), x)[0], x)


def test_a_half_graph_does_not_overflow_on_a_cpu_which_is_why_there_is_an_emulation() -> None:
    assert np.isfinite(run(halved(GraphIndex(overflowing()), ()), f32(1, 64, 66, -1000).reshape(1, WIDTH))[0]).all()


def test_the_emulation_loses_what_is_too_small_for_half() -> None:
    model = graph_of([node("Mul", "x k", "a"), node("Div", "a k", "y")], {"k": f32(1e-5)})
    (y,) = run(emulated(GraphIndex(model), ()), f32(1, 1e-4, 1e-2, 0).reshape(1, WIDTH))
    assert y[0, 0] == 1
    assert y[0, 1] == 0
    assert y[0, 2] == pytest.approx(np.float16(1e-2 * 1e-5) / np.float16(1e-5), rel=1e-3)


def test_sums_inside_a_node_are_not_rounded() -> None:
    model = graph_of([node("ReduceMean", "x", "y", axes=[1], keepdims=0)], {})
    model.opset_import[0].version = 17  # axes as an attribute
    x = f32(60000, 60000, 60000, 60000).reshape(1, WIDTH)
    assert run(emulated(GraphIndex(model), ()), x)[0] == np.float16(60000)


def test_names_that_are_taken_are_not_given_again() -> None:
    nodes = [
        node("Mul", "x w", "x.half"),
        node("Add", "x x.half", "x.half.rounded"),
        node("Neg", "x.half.rounded", "y"),
    ]
    model = graph_of(nodes, {"w": f32(2)})
    x = f32(1, 2, 3, 4).reshape(1, WIDTH)
    for made in (
        halved(GraphIndex(model), ()),
        emulated(GraphIndex(model), ()),
        halved(GraphIndex(model), ["x.half.rounded"]),
    ):
        onnx.checker.check_model(made, full_check=True)
        np.testing.assert_array_equal(run(made, x)[0], -3 * x)


def test_lite_keeps_its_contract() -> None:
    model = onnx.load_model_from_string(load_artifact("lite").model)
    half, stand_in = halved(GraphIndex(model), ()), emulated(GraphIndex(model), ())
    check_typing(half)
    onnx.checker.check_model(stand_in, full_check=True)
    for made in (half, stand_in):
        assert made.graph.input == model.graph.input
        assert made.graph.output == model.graph.output
        assert made.metadata_props == model.metadata_props
        assert made.opset_import == model.opset_import
    assert {tensor.data_type for tensor in half.graph.initializer} == {TensorProto.FLOAT16, TensorProto.INT64}
    assert kinds(half)["Cast"] == 3
    faces = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    (exact, _), (rounded, scores), (on_cpu, _) = (run(made, faces) for made in (model, stand_in, half))
    np.testing.assert_allclose(rounded, exact, atol=0.02)
    np.testing.assert_allclose(on_cpu, exact, atol=0.02)
    assert (rounded != exact).all()
    assert (rounded == rounded.astype(np.float16)).all()
    assert rounded.shape == scores.shape == (2,)
    assert run(half, faces[:1])[0].shape == (1,)


Arithmetic = Callable[..., NDArray[Any]]
OPERATORS: dict[str, tuple[int, Arithmetic]] = {
    "Add": (2, lambda a, b: a + b),
    "Sub": (2, lambda a, b: a - b),
    "Mul": (2, lambda a, b: a * b),
    "Max": (2, np.maximum),
    "Relu": (1, lambda a: np.maximum(a, a.dtype.type(0))),
    "Neg": (1, lambda a: -a),
    "Identity": (1, lambda a: a),
    "Reciprocal": (1, lambda a: a.dtype.type(1) / a),
    "Sqrt": (1, np.sqrt),
}


@st.composite
def random_graphs(draw: st.DrawFn) -> tuple[onnx.ModelProto, frozenset[str]]:
    """A graph of up to ten nodes that use `x`, two weights and each other, and some of their names."""
    names, nodes = ["x", "w", "v"], []
    for number in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(sorted(OPERATORS)))
        inputs = draw(st.lists(st.sampled_from(names), min_size=OPERATORS[kind][0], max_size=OPERATORS[kind][0]))
        nodes.append(node(kind, " ".join(inputs), f"t{number}"))
        names.append(f"t{number}")
    outputs = tuple(draw(st.sets(st.sampled_from(names[3:]), min_size=1)))
    weights = {name: f32(*draw(st.lists(st.floats(-300, 300, width=32), min_size=4, max_size=4))) for name in "wv"}
    return graph_of(nodes, weights, outputs), frozenset(draw(st.sets(st.sampled_from(names[3:]))))


def computed(model: onnx.ModelProto, fp32_nodes: frozenset[str], x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What numpy, which rounds every result, makes of a graph."""
    values: dict[str, NDArray[Any]] = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values["x"] = x
    for item in model.graph.node:
        kind = np.float32 if item.name in fp32_nodes else np.float16
        given_values = [values[name].astype(kind) for name in item.input]
        # The sign of a zero, which the maximum of two zeros leaves open, must not decide.
        assume(item.op_type != "Reciprocal" or given_values[0].all())
        values[item.output[0]] = OPERATORS[item.op_type][1](*given_values)
    return [values[output.name].astype(np.float32) for output in model.graph.output]


@given(random_graphs(), st.lists(st.floats(-300, 300, width=32), min_size=4, max_size=4))
def test_random_graphs_are_valid_and_emulated_as_numpy_computes_in_half(
    drawn: tuple[onnx.ModelProto, frozenset[str]], numbers: list[float]
) -> None:
    model, fp32_nodes = drawn
    half, stand_in = halved(GraphIndex(model), fp32_nodes), emulated(GraphIndex(model), fp32_nodes)
    check_typing(half)
    onnx.checker.check_model(stand_in, full_check=True)
    x = f32(*numbers).reshape(1, WIDTH)
    with np.errstate(all="ignore"):
        expected = computed(model, fp32_nodes, x)
    assume(not any(np.isnan(value).any() for value in expected))
    for got, wanted in zip(run(stand_in, x), expected, strict=True):
        np.testing.assert_array_equal(got, np.broadcast_to(wanted, got.shape))
    assert run(half, x)[0].dtype == np.float32
