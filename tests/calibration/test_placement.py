from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deepscan.calibration.placement import Placement, placed, quantizable
from deepscan.calibration.qdq import with_qdq
from deepscan.export.tensor_values import Range
from deepscan.runtime.artifacts.artifacts import Activations
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from tests.calibration.networks import SIDE, Network, faces, residual_network

NODES = ("stem", "first", "second", "sum", "depthwise", "wide", "mean", "fc")


def everything(model: onnx.ModelProto, activations: Activations, *, but: tuple[str, ...] = ()) -> Placement:
    index = GraphIndex(model)
    return placed(index, [name for name in quantizable(index, activations) if name not in but], activations)


def test_what_can_compute_in_8_bits_is_found() -> None:
    assert quantizable(GraphIndex(residual_network()), "affine") == NODES


def test_on_a_processor_everything_around_convolutions_and_sums_is_quantized() -> None:
    placement = everything(residual_network(), "affine")
    assert placement.layers == {"stem", "first", "second", "depthwise", "wide", "fc"}
    # Not what an activation is still to be applied to; behind the pool the range is the one before it.
    assert placement.roots == {
        "pixels": "pixels",
        "stem.relu": "stem.relu",
        "first.relu": "first.relu",
        "second": "second",
        "sum.relu": "sum.relu",
        "depthwise.relu": "depthwise.relu",
        "pool": "depthwise.relu",
        "wide.relu": "wide.relu",
        "mean": "mean",
    }
    assert placement.exact == frozenset()


def test_for_tensorrt_a_convolution_is_added_before_rounding() -> None:
    placement = everything(residual_network(), "symmetric")
    assert "second" not in placement.roots
    assert "stem.relu" in placement.roots
    assert placement.layers == everything(residual_network(), "affine").layers


def test_a_node_that_is_left_out_reads_what_was_not_quantized() -> None:
    placement = everything(residual_network(), "affine", but=("depthwise",))
    assert "depthwise" not in placement.layers
    assert placement.exact == {"depthwise"}
    # Nobody else wants its input, nor must the sum before it be rounded for it.
    assert "sum.relu" not in placement.roots
    # The convolution behind it still reads integers.
    assert placement.roots["pool"] == "depthwise.relu"


def test_a_tensor_that_one_more_node_reads_is_quantized_for_that_node_alone() -> None:
    placement = everything(residual_network(), "affine", but=("first",))
    assert "stem.relu" in placement.roots
    assert placement.exact == {"first"}


def test_a_node_that_is_left_out_reads_exact_numbers_through_what_only_moves_them() -> None:
    placement = everything(residual_network(), "affine", but=("wide",))
    assert placement.exact == {"wide", "pool"}
    assert "depthwise.relu" not in placement.roots


def test_nothing_is_quantized_without_a_node_that_reads_it() -> None:
    placement = everything(residual_network(), "affine", but=NODES)
    assert not placement.layers
    assert not placement.roots


@pytest.mark.parametrize("activations", ["affine", "symmetric"])
def test_leaving_out_never_needs_a_range_that_all_did_not_need(activations: Activations) -> None:
    roots = set(everything(residual_network(), activations).roots.values())
    for name in NODES:
        others = tuple(other for other in NODES if other != name)
        assert set(everything(residual_network(), activations, but=(name,)).roots.values()) <= roots
        assert set(everything(residual_network(), activations, but=others).roots.values()) <= roots


def test_groups_of_several_outputs_stay_in_float32() -> None:
    net = Network()
    stem = net.convolution(net.pixels(), "stem", (8, 3, 3, 3))
    wide = net.convolution(stem, "grouped", (24, 1, 3, 3), group=8)
    placement = everything(net.model(wide, 24), "affine")
    assert "grouped" not in placement.layers
    assert placement.exact == {"grouped"}


def clip_network(*, pad: bool) -> onnx.ModelProto:
    """A 3-D stem with its pool, or pictures that are padded along the frames between two layers."""
    net = Network()
    net.add("Cast", ["faces"], "floats", to=1)
    net.add("Transpose", ["floats"], "pixels", perm=[0, 4, 1, 2, 3])
    stem = net.convolution("pixels", "stem", (4, 3, 1, 3, 3), relu=not pad)
    if pad:
        pads = net.constant("pads", np.array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
        net.add("Pad", [stem, pads], "moved")
    else:
        net.add("MaxPool", [stem], "moved", kernel_shape=[1, 2, 2], strides=[1, 2, 2])
    net.add("Reshape", ["moved", net.constant("same", np.array([0, 4, -1, 6, 6]))], "again")
    return net.model(net.convolution("again", "next", (4, 4, 1, 1, 1)), 4, item=(4, SIDE, SIDE, 3))


def test_before_a_3d_pool_the_stem_keeps_its_output_in_float32() -> None:
    placement = everything(clip_network(pad=False), "affine")
    assert {"stem", "next"} <= placement.layers
    assert "stem.relu" not in placement.roots
    assert placement.roots["again"] == "moved"
    assert "stem.relu" not in everything(clip_network(pad=False), "affine", but=("fc",)).roots


def test_on_a_processor_nothing_that_was_padded_along_frames_is_quantized() -> None:
    model = clip_network(pad=True)
    assert "next" not in quantizable(GraphIndex(model), "affine")
    assert everything(model, "symmetric").roots["again"] == "stem"


def test_openvino_and_onnx_runtime_agree_where_frames_are_padded() -> None:
    openvino = pytest.importorskip("openvino")
    net = Network()
    net.add("Cast", ["faces"], "floats", to=1)
    net.add("Transpose", ["floats"], "turned", perm=[0, 1, 4, 2, 3])
    net.add("Sub", ["turned", net.constant("gray", np.float32(128))], "pixels")
    net.add("Pad", ["pixels", net.constant("pads", np.array([0, 2, 0, 0, 0, 0, 2, 0, 0, 0]))], "moved")
    model = net.model(net.convolution("moved", "next", (4, 8, 1, 1, 1)), 4, item=(4, SIDE, SIDE, 3))
    placement = everything(model, "affine")
    ranges = {root: Range(-128.0, 127.0) for root in placement.roots.values()}
    made = with_qdq(GraphIndex(model), placement, ranges, "affine")
    shown = "moved:8bit" if "moved" in placement.roots else "moved"
    made.graph.output.append(onnx.ValueInfoProto(name=shown))
    clips = faces(1, item=(4, SIDE, SIDE, 3))
    session = Session(made.SerializeToString(), source="made", device="cpu", threads=1)
    (expected,) = session.run([shown], {"faces": clips})
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(made.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled({"faces": clips})[shown], expected, atol=2.0)


def test_pictures_may_be_padded() -> None:
    net = Network()
    stem = net.convolution(net.pixels(), "stem", (8, 3, 3, 3))
    net.add("Pad", [stem, net.constant("pads", np.array([0, 0, 0, 0, 0, 0, 1, 1]))], "padded")
    placement = everything(net.model(net.convolution("padded", "next", (8, 8, 3, 3)), 8), "affine")
    assert "next" in placement.layers
    assert placement.roots["padded"] == "stem.relu"


def test_padding_with_ones_gives_new_numbers() -> None:
    model = clip_network(pad=True)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "ones"))
    next(node for node in model.graph.node if node.op_type == "Pad").input.append("ones")
    assert everything(model, "symmetric").roots["again"] == "moved"


def test_weights_may_be_stored_as_halves_and_in_constant_nodes() -> None:
    model = residual_network()
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    halves = numpy_helper.to_array(stored["first.weight"]).astype(np.float16)
    extra = [
        helper.make_node("Cast", ["first.half"], ["first.weight"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Constant", [], ["wide.weight"], value=stored["wide.weight"]),
    ]
    for name in ("first.weight", "wide.weight"):
        model.graph.initializer.remove(stored[name])
    model.graph.initializer.append(numpy_helper.from_array(halves, "first.half"))
    nodes = [*extra, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    index = GraphIndex(model)
    assert quantizable(index, "affine") == NODES
    np.testing.assert_array_equal(index.constants["first.weight"], halves.astype(np.float32))
    assert "first.half" not in index.initializers


def test_nodes_without_names_of_their_own_get_some() -> None:
    model = residual_network()
    for node in model.graph.node:
        node.name = "the same" if node.op_type == "Conv" else ""
    names = [node.name for node in GraphIndex(model).nodes]
    assert len(set(names)) == len(names)
    assert all(names)
