from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from deepscan.export.bench.graph_costs import flop_of
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import load_artifact
from tests.models.goldens import golden_graph

Axes = Sequence[int | str]


def graph(
    nodes: list[onnx.NodeProto], shape: Axes, weights: dict[str, Sequence[int]], *, kind: Any = np.float32
) -> bytes:
    """Make a graph from x to y; where a weight is quantized its scale and zero point are there too."""
    tensors = [numpy_helper.from_array(np.ones(sizes, dtype=kind), name) for name, sizes in weights.items()]
    tensors += [numpy_helper.from_array(np.array(0.1, np.float32), "scale")]
    tensors.append(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], tensors),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)],
        ir_version=9,
    )
    return bytes(made.SerializeToString())


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def test_a_convolution_needs_a_product_per_output_and_weight_of_its_group() -> None:
    made = graph(
        [node("Conv", "x w b", "y", strides=[2, 2], pads=[1, 1, 1, 1])], ["N", 3, 9, 9], {"w": (8, 3, 3, 3), "b": (8,)}
    )
    assert flop_of(made) == 2 * (8 * 5 * 5) * (3 * 3 * 3)
    grouped = graph([node("Conv", "x w", "y", group=4)], ["N", 8, 6, 6], {"w": (8, 2, 3, 3)})
    assert flop_of(grouped) == 2 * (8 * 4 * 4) * (2 * 3 * 3)


def test_convolutions_over_time_are_counted_alike() -> None:
    made = graph([node("Conv", "x w", "y", pads=[1, 0, 0, 1, 0, 0])], ["N", 4, 10, 5, 5], {"w": (6, 4, 3, 1, 1)})
    assert flop_of(made) == 2 * (6 * 10 * 5 * 5) * (4 * 3)


@pytest.mark.parametrize(("transposed", "shape"), [(0, (7, 5)), (1, (5, 7))])
def test_a_matrix_product_with_bias_is_counted_without_it(transposed: int, shape: tuple[int, int]) -> None:
    made = graph([node("Gemm", "x w b", "y", transA=transposed, transB=1)], shape, {"w": (3, 5), "b": (3,)})
    assert flop_of(made) == 2 * (7 * 3) * 5


def test_stacks_of_matrices_are_multiplied_one_by_one() -> None:
    made = graph([node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("MatMul", "x t", "y")], ["N", 4, 6, 9], {})
    assert flop_of(made) == 2 * (4 * 6 * 6) * 9


def test_nothing_else_counts_and_the_free_batch_is_one() -> None:
    nodes = [node("Relu", "x", "r"), node("Mul", "r r", "m"), node("Softmax", "m", "y")]
    assert flop_of(graph(nodes, ["N", 64, 64], {})) == 0
    elsewhere = [helper.make_node("Conv", ["x"], ["y"], domain="elsewhere")]
    assert flop_of(graph(elsewhere, ["N", 3, 8, 8], {})) == 0
    conv = [node("Conv", "x w", "y")]
    one, four = (flop_of(graph(conv, [batch, 3, 8, 8], {"w": (2, 3, 3, 3)})) for batch in ("N", 4))
    assert one
    assert four == 4 * one


def test_a_quantized_graph_needs_what_the_plain_one_does() -> None:
    nodes = [
        node("QuantizeLinear", "x scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "d"),
        node("DequantizeLinear", "w scale zero", "v"),
        node("Conv", "d v", "y"),
    ]
    quantized = graph(nodes, ["N", 32, 8, 8], {"w": (64, 32, 3, 3)}, kind=np.uint8)
    plain = graph([node("Conv", "x w", "y")], ["N", 32, 8, 8], {"w": (64, 32, 3, 3)})
    assert flop_of(quantized) == flop_of(plain) == 2 * (64 * 6 * 6) * (32 * 9)


def test_lite_needs_what_torch_counts() -> None:
    spec = find_detector("lite").spec
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        find_detector("lite").build().eval()(torch.zeros(1, 3, spec.size, spec.size))
    assert flop_of(load_artifact("lite").model) == counter.get_total_flops() == 1_150_461_408


@pytest.mark.slow
@pytest.mark.parametrize("form", ["3d", "2d"])
def test_altfreezing_needs_what_its_layers_add_up_to_in_both_forms(form: str) -> None:
    made = golden_graph("altfreezing", "2d" if form == "2d" else None)
    assert flop_of(made.SerializeToString()) == i3d_flop() == 227_254_734_848


def i3d_flop() -> int:
    """Add up I3D ResNet-50 on 32 x 224 x 224 (Carreira & Zisserman 2017, as in SlowFast): stem, stages, one output."""
    total = 64 * 3 * (5 * 7 * 7) * (32 * 112 * 112)
    inputs, side = 64, 56
    stages = [(3, 64, 32, {0, 1, 2}), (4, 128, 16, {0, 2}), (6, 256, 16, {0, 2, 4}), (3, 512, 16, {1})]
    for stage, (blocks, inner, frames, over_time) in enumerate(stages):
        for block in range(blocks):
            before, after = side, side // 2 if stage and not block else side
            total += inner * inputs * (3 if block in over_time else 1) * frames * before**2
            total += (inner * inner * 9 + 4 * inner * inner) * frames * after**2
            total += 0 if block else 4 * inner * inputs * frames * after**2
            inputs, side = 4 * inner, after
    return 2 * (total + inputs)


def test_a_graph_that_does_not_tell_its_shapes_has_no_count() -> None:
    lacking = onnx.load_model_from_string(graph([node("Relu", "x", "y")], ["N", 8], {}))
    del lacking.opset_import[:]
    assert flop_of(lacking.SerializeToString()) is None
    unknown = [helper.make_node("Blur", ["x"], ["u"], domain="elsewhere"), node("Conv", "u w", "y")]
    assert flop_of(graph(unknown, ["N", 3, 8, 8], {"w": (2, 3, 3, 3)})) is None


def test_a_shape_may_be_given_by_the_values_of_a_tensor() -> None:
    made = graph([node("Reshape", "x sizes", "r"), node("MatMul", "r w", "y")], ["N", 2048], {"w": (512, 64)})
    model = onnx.load_model_from_string(made)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4, 512]), "sizes"))
    assert flop_of(model.SerializeToString()) == 2 * (4 * 64) * 512
