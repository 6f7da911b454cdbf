from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deepscan.errors import ModelError
from deepscan.export.onnx_from_module import traced_onnx
from deepscan.models.networks.ftcn import FTCN
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.artifact_graph import CUDA_LIMIT_BYTES, largest_batch


def graph_of(nodes: list[NodeProto], item: int, weights: int = 1) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", item])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros((weights, item), dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@given(item=st.integers(1, 50), weights=st.integers(1, 2000), limit=st.integers(1, 10**6))
def test_the_largest_batch_is_the_last_one_that_fits(item: int, weights: int, limit: int) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["wide", "w"], ["y"], axis=0),
    ]
    most = largest_batch(graph_of(nodes, item, weights), limit)

    def fits(items: int) -> bool:
        return 4 * item * (items + weights) <= limit

    assert most >= 0
    assert fits(most) or most == 0
    assert not fits(most + 1)


@pytest.mark.parametrize(("kind", "expected"), [(TensorProto.FLOAT, 25), (TensorProto.FLOAT16, 50)])
def test_halves_take_half(kind: int, expected: int) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["h"], to=kind), helper.make_node("Cast", ["h"], ["y"], to=kind)]
    model = graph_of(nodes, 10)
    model.graph.output[0].type.tensor_type.elem_type = kind
    assert largest_batch(model, 1000) == expected


def test_32_clips_are_too_many_for_the_stem_of_ftcn() -> None:
    """Its 64 maps of 224 x 224 for each of 32 frames are 392 MiB per clip."""
    spec = find_detector("ftcn").spec
    stem = FTCN(frame_pool=2).resnet.get_submodule("s1")
    clips = torch.zeros(2, 3, spec.frames, spec.size, spec.size)
    model = traced_onnx(stem, clips, input_name="clips", output_names=["maps"], free_axes=["N"])
    bytes_per_clip = 4 * 64 * 32 * 224 * 224
    assert largest_batch(model, CUDA_LIMIT_BYTES) == 5
    assert 5 * bytes_per_clip < 2**31 < 6 * bytes_per_clip
    assert largest_batch(model, bytes_per_clip - 1) == 0


def test_the_embedded_detector_is_small_and_is_left_as_it_is() -> None:
    model = onnx.load_model_from_string(load_artifact("lite").model)
    before = model.SerializeToString()
    assert 100 < largest_batch(model, CUDA_LIMIT_BYTES) < 1000
    assert model.SerializeToString() == before


def test_a_size_that_cannot_be_known_is_an_error() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ModelError, match=r"^The size of places in sizes is not known: export the detector again\.$"):
        largest_batch(graph_of(nodes, 3), 1000)


def test_a_graph_that_contradicts_itself_is_an_error() -> None:
    nodes = [helper.make_node("Transpose", ["w"], ["y"], perm=[0, 1, 2])]
    with pytest.raises(ModelError, match=r"^sizes is inconsistent \(.*\): export the detector again\.$"):
        largest_batch(graph_of(nodes, 3), 1000)
