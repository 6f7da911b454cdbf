from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ValueInfoProto, numpy_helper

from deepscan.calibration.placement import Placement, placed, quantizable
from deepscan.calibration.qdq import quantized_weights, scale_of, with_qdq
from deepscan.calibration.ranges import ItemReader, observe
from deepscan.export.tensor_values import Range
from deepscan.runtime.artifacts.artifacts import Activations
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from tests.calibration.networks import faces, residual_network

schemes: list[Activations] = ["affine", "symmetric"]


def quantized_all(activations: Activations) -> tuple[GraphIndex, Placement, dict[str, Range], onnx.ModelProto]:
    index = GraphIndex(residual_network())
    placement = placed(index, quantizable(index, activations), activations)
    seen = observe(index, set(placement.roots.values()), ItemReader(faces(8), seed=0))
    ranges = {name: Range(values.low, values.high) for name, values in seen.items()}
    return index, placement, ranges, with_qdq(index, placement, ranges, activations)


def values_in(model: onnx.ModelProto, names: list[str]) -> dict[str, NDArray[np.float32]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = Session(copy.SerializeToString(), source="quantized", device="cpu", threads=1)
    return dict(zip(names, session.run(names, {"faces": faces(8)}), strict=True))


@pytest.mark.parametrize("activations", schemes)
def test_the_graph_is_valid_and_keeps_its_contract(activations: Activations) -> None:
    index, _, _, model = quantized_all(activations)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input == index.model.graph.input
    assert model.graph.output == index.model.graph.output


@pytest.mark.parametrize("activations", schemes)
def test_every_quantized_tensor_holds_the_rounded_numbers(activations: Activations) -> None:
    _, placement, ranges, model = quantized_all(activations)
    # Both in one run, as what comes before is rounded too.
    names = [name for tensor in placement.roots for name in (tensor, f"{tensor}:8bit")]
    values = values_in(model, names)
    for tensor, root in placement.roots.items():
        scale = scale_of(ranges[root], activations)
        limits = np.iinfo(scale.zero_point.dtype)
        zero = int(scale.zero_point)
        integers = np.clip(np.rint(values[tensor] / scale.step) + zero, limits.min, limits.max)
        expected = (integers - zero) * scale.step
        # Where a runtime fuses, a number on the edge between two integers may go to the other one.
        far = np.abs(values[f"{tensor}:8bit"] - expected) > 1e-5
        assert far.mean() < 0.001
        assert np.abs(values[f"{tensor}:8bit"] - expected).max() < 1.01 * scale.step


@pytest.mark.parametrize("activations", schemes)
def test_weights_and_biases_are_integers_of_their_layer(activations: Activations) -> None:
    index, placement, ranges, model = quantized_all(activations)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    for name in placement.layers:
        layer = nodes[name]
        original = next(node for node in index.nodes if node.name == name)
        step = scale_of(ranges[placement.roots[original.input[0]]], activations).step
        bias = index.constants[original.input[2]] if len(original.input) > 2 else None
        integers, steps = quantized_weights(
            index.constants[original.input[1]],
            axis=0,
            bias=bias if activations == "affine" else None,
            input_step=step,
        )
        dequantized = nodes[f"DequantizeLinear {layer.input[1]}"]
        np.testing.assert_array_equal(stored[dequantized.input[0]], integers)
        np.testing.assert_array_equal(stored[dequantized.input[1]], steps)
        assert original.input[1] not in stored
        if bias is None:
            assert len(layer.input) == 2
        elif activations == "symmetric":
            np.testing.assert_array_equal(stored[layer.input[2]], bias)
        else:
            sums = nodes[f"DequantizeLinear {layer.input[2]}"]
            assert stored[sums.input[0]].dtype == np.int32
            np.testing.assert_array_equal(stored[sums.input[1]], steps * step)


def test_around_zero_all_zero_points_are_zero_and_signed() -> None:
    _, _, _, model = quantized_all("symmetric")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    points = [stored[node.input[2]] for node in model.graph.node if node.op_type.endswith("izeLinear")]
    assert len(points) > 20
    assert {point.dtype for point in points} == {np.dtype(np.int8)}
    assert not any(point.any() for point in points)


def test_a_layer_that_is_left_out_reads_the_numbers_before_rounding() -> None:
    index, _, ranges, _ = quantized_all("affine")
    nodes = [name for name in quantizable(index, "affine") if name != "first"]
    model = with_qdq(index, placed(index, nodes, "affine"), ranges, "affine")
    inputs = {node.name: list(node.input) for node in model.graph.node}
    assert inputs["first"] == ["stem.relu", "first.weight", "first.bias"]
    assert inputs["sum"] == ["second:8bit", "stem.relu:8bit"]


@pytest.mark.parametrize("activations", schemes)
def test_with_everything_left_out_the_graph_computes_what_it_did(activations: Activations) -> None:
    index, _, ranges, _ = quantized_all(activations)
    model = with_qdq(index, placed(index, (), activations), ranges, activations)
    for name, values in values_in(index.model, ["sum", "mean", "fc"]).items():
        np.testing.assert_array_equal(values_in(model, [name])[name], values)
