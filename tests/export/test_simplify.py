"""Every detector's graph: no shape arithmetic, nothing that does nothing, any batch; and batch normalization folded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from deepscan.export.forms import graph_of
from deepscan.export.half import store_exact_halves
from deepscan.export.onnx_from_module import OPSET
from deepscan.export.simplify import folded_batch_norm
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.torch_network import network_of
from deepscan.spec import DetectorSpec
from tests.models.goldens import golden, golden_graph
from tests.runtime.graphs import narrow_caddm

FACES = np.load(Path(__file__).parents[1] / "models" / "lite_golden.npz")["faces"]
SAME = 1e-5  # of a score, absolute and relative
DETECTORS = [
    "lite",
    "caddm-resnet34",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in "altfreezing-3d altfreezing-2d ftcn-3d ftcn-2d hff recce narrow-caddm".split()
    ),
]
# Loops, sizes that are computed, and what only `torch.onnx` would leave behind.
FORBIDDEN = set(
    "Shape Size ConstantOfShape NonZero Range Loop If Scan Expand Tile Where Identity Constant Dropout Einsum "
    "ScatterND GatherND SequenceAt".split()
)
FEW = 600  # nodes, of CADDM as deep as b3; RECCE's loop over 361 places, unrolled, has thousands


@dataclass(frozen=True, eq=False)
class Case:
    spec: DetectorSpec
    model: onnx.ModelProto
    items: NDArray[np.uint8]
    scores: NDArray[np.floating]  # of torch, or of the authors' code

    @property
    def name(self) -> str:
        return self.spec.name


@pytest.fixture(scope="module", params=DETECTORS)
def case(request: pytest.FixtureRequest) -> Case:
    """A detector's graph, with items and their scores: those of torch, or the goldens'."""
    chosen: str = request.param
    if chosen == "lite":
        return embedded()
    if chosen == "narrow-caddm":
        return narrow()
    name = chosen.removesuffix("-2d").removesuffix("-3d")
    again = [0, 1, 0]  # not as many as were traced
    expected = golden(name.replace("-", "_"))
    model = golden_graph(name, "2d" if chosen.endswith("-2d") else None)
    return Case(find_detector(name).spec, model, expected.inputs()[again], expected.fake()[again])


def embedded() -> Case:
    """The artifact that comes with the package, which `test_artifact` compares with a fresh one."""
    artifact = load_artifact("lite")
    spec, items = artifact.manifest.spec, np.concatenate([FACES, FACES[:1, :, ::-1]])
    scores = of_torch(network_of(artifact), spec, items)
    return Case(spec, onnx.load_model_from_string(artifact.model), items, scores)


def narrow() -> Case:
    """CADDM as deep as with b3, with random weights."""
    spec, network = find_detector("caddm-efficientnet-b3").spec, narrow_caddm()
    draws = np.random.default_rng(4)
    # From dark to bright, for items of the same noise all score the same.
    items = np.stack([draws.integers(0, 64 + 192 * i // 5, spec.item_shape, dtype=np.uint8) for i in range(5)])
    see_bytes(network, items)
    return Case(spec, graph_of(network, spec), items, of_torch(network, spec, items))


def of_torch(network: nn.Module, spec: DetectorSpec, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.inference_mode():
        scores: NDArray[np.float32] = ArtifactGraph(network, spec).eval()(torch.from_numpy(items))[1].numpy()
    return scores


def see_bytes(network: nn.Module, items: NDArray[np.uint8]) -> None:
    """Take the statistics from 0..255, which CADDM is given; those of noise around 0 make its logits huge and rough."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all passes, which is one
    with torch.no_grad():
        network.train()(torch.from_numpy(items).permute(0, 3, 1, 2).flip(1).float())
    network.eval()


def constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def answers(model: onnx.ModelProto, items: NDArray[np.uint8]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits, scores = session.run(["logit", "score"], {model.graph.input[0].name: items})
    assert logits.shape == scores.shape == (len(items),)
    found: NDArray[np.float32] = scores
    return found


def assert_same(got: NDArray[np.float32], expected: NDArray[np.floating], *, slack: float = SAME) -> None:
    np.testing.assert_allclose(got, expected, rtol=slack, atol=slack)


def test_only_plain_operators_are_left(case: Case) -> None:
    graph = case.model.graph
    assert {node.op_type for node in graph.node} & FORBIDDEN == set()
    assert {node.domain for node in graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in case.model.opset_import] == [("", OPSET)]
    assert len(graph.node) < FEW
    onnx.checker.check_model(case.model, full_check=True)


def test_no_number_of_the_graph_is_a_size(case: Case) -> None:
    inferred = onnx.shape_inference.infer_shapes(case.model, strict_mode=True, data_prop=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    assert {kinds[name] for node in inferred.node for name in node.output} == {TensorProto.FLOAT}


def test_reshapes_have_constant_targets_that_leave_the_batch_free(case: Case) -> None:
    stored = constants(case.model)
    targets = [stored[node.input[1]] for node in case.model.graph.node if node.op_type == "Reshape"]
    for target in targets:
        sizes = numpy_helper.to_array(target).tolist()
        assert sizes.count(-1) == 1, sizes
        assert sizes.count(0) == 0, sizes
    assert not [node for node in case.model.graph.node for attribute in node.attribute if attribute.name == "allowzero"]


def test_padding_is_in_the_convolutions(case: Case) -> None:
    nodes = case.model.graph.node
    padded = {node.output[0] for node in nodes if node.op_type == "Pad"}
    assert not [node.name for node in nodes if node.op_type == "Conv" and node.input[0] in padded]
    if case.spec.kind == "frame":
        assert not padded


def test_nothing_is_there_twice_or_for_nothing(case: Case) -> None:
    graph = case.model.graph
    assert unused(case.model) == set()
    names = Counter(node.name for node in graph.node)
    assert names.most_common(1)[0][1] == 1
    assert "" not in names
    small = Counter(
        (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
        for tensor in graph.initializer
        if not tensor.name.startswith("network.")
    )
    assert max(small.values()) == 1
    assert not [node.name for node in graph.node if does_nothing(node, constants(case.model))]


def unused(model: onnx.ModelProto) -> set[str]:
    """Return the names of tensors and results that nothing takes."""
    nodes = model.graph.node
    taken = {name for node in nodes for name in node.input} | {output.name for output in model.graph.output}
    return ({name for node in nodes for name in node.output} | set(constants(model))) - taken


def does_nothing(node: NodeProto, stored: dict[str, TensorProto]) -> bool:
    """Tell whether a node gives one of its inputs as it is: x + 0, x * 1, or an untouched order of axes."""
    neutral = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
    if node.op_type in neutral and node.input[1] in stored:
        return bool((numpy_helper.to_array(stored[node.input[1]]) == neutral[node.op_type]).all())
    if node.op_type == "Transpose":
        order = list(node.attribute[0].ints)
        return order == sorted(order)
    return False


def test_layers_have_the_names_of_their_weights(case: Case) -> None:
    layers = [node for node in case.model.graph.node if node.op_type == "Conv"]
    assert [node.name for node in layers if not node.name.startswith(node.input[1].rpartition(".")[0])] == []


def test_the_graph_gives_the_scores_of_torch_at_any_batch(case: Case) -> None:
    assert np.ptp(case.scores) > 100 * SAME  # else equal scores would prove little
    # Clips one by one, and two: `test_lowering.py` and the tests of each detector.
    for count in {1, len(case.items)} if case.spec.kind == "frame" else {len(case.items)}:
        assert_same(answers(case.model, case.items[:count]), case.scores[:count])


def test_folded_the_scores_are_the_same(case: Case) -> None:
    before = case.model.SerializeToString(deterministic=True)
    made = folded_batch_norm(case.model)
    onnx.checker.check_model(made, full_check=True)
    assert case.model.SerializeToString(deterministic=True) == before
    operators = Counter(node.op_type for node in made.graph.node)
    assert operators["BatchNormalization"] == 0
    # Only HFF normalizes what no convolution gave.
    assert [node.name for node in made.graph.node if node.name.endswith((".scale", ".offset"))] == (
        ["network.srm_sa_post.0.scale", "network.srm_sa_post.0.offset"] if case.name == "hff" else []
    )
    count = 1 if case.spec.kind == "clip" else 3
    assert_same(answers(made, case.items[:count]), case.scores[:count])


def test_the_embedded_detector_whose_weights_are_halves_is_folded_too() -> None:
    model = onnx.load_model_from_string(load_artifact("lite").model)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    made = folded_batch_norm(model)
    folded = [tensor for tensor in made.graph.initializer if tensor.name.endswith(".folded")]
    assert len(folded) == 2 * sum(node.op_type == "BatchNormalization" for node in model.graph.node) > 100
    assert {tensor.data_type for tensor in folded} == {TensorProto.FLOAT}
    assert not [node for node in made.graph.node if node.op_type == "BatchNormalization"]
    assert unused(made) == set()
    assert_same(answers(made, FACES), answers(model, FACES))


NORMALIZED = ("scale", "shift", "mean", "variance")


def small(nodes: list[NodeProto], shape: tuple[int, ...], held: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Make a graph of one float input `x` and one output `score`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("used_elsewhere", [False, True])
@pytest.mark.parametrize("halved", [False, True])
def test_a_convolution_is_folded_only_where_the_normalization_is_its_one_use(
    *, axes: int, biased: bool, used_elsewhere: bool, halved: bool
) -> None:
    draw = np.random.default_rng(axes)
    held = {name: draw.uniform(0.5, 2, 4).astype(np.float32) for name in NORMALIZED}
    held["weight"] = draw.normal(size=(4, 3, *[3] * axes)).astype(np.float32)
    held["bias"] = draw.normal(size=4).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "weight", *(["bias"] if biased else [])], ["y"], name="conv")
    norm = helper.make_node("BatchNormalization", ["y", *NORMALIZED], ["z"], name="norm", epsilon=0.25)
    last = (
        helper.make_node("Add", ["y", "z"], ["score"]) if used_elsewhere else helper.make_node("Relu", ["z"], ["score"])
    )
    if halved:
        held = {name: value.astype(np.float16).astype(np.float32) for name, value in held.items()}
    if not biased:
        del held["bias"]
    model = small([conv, norm, last], (2, 3, *[5] * axes), held)
    x = draw.normal(size=(2, 3, *[5] * axes)).astype(np.float32)
    assert store_exact_halves(model) == (len(held) if halved else 0)
    made = folded_batch_norm(model)
    assert unused(made) == set()
    left = [node.op_type for node in made.graph.node if node.op_type != "Cast"]
    assert left == (["Conv", "Mul", "Add", "Add"] if used_elsewhere else ["Conv", "Relu"])
    sessions = [onnxruntime.InferenceSession(graph.SerializeToString()) for graph in (model, made)]
    expected, got = (session.run(None, {"x": x})[0] for session in sessions)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
