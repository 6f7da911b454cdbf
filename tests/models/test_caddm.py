from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks.caddm import Caddm, anchor_priors
from deepscan.models.networks.efficientnet import SameConv2d
from deepscan.models.registry import find_detector
from deepscan.spec import DetectorSpec
from tests.goldens import golden_weights
from tests.models.goldens import FOLDER, Golden, check_activations, check_answers, golden, golden_graph

BACKBONES = ["resnet34", "efficientnet-b3", "efficientnet-b4"]
EFFICIENTNETS = ["efficientnet-b3", "efficientnet-b4"]
# Making and exporting 211 M and 290 M weights takes a minute each.
WHOLE = ["resnet34", *(pytest.param(name, marks=pytest.mark.slow) for name in EFFICIENTNETS)]
PROTOBUF_LIMIT = 2**31


@dataclasses.dataclass(frozen=True)
class Case:
    network: Caddm
    spec: DetectorSpec
    expected: Golden


@dataclasses.dataclass(frozen=True)
class Exported:
    session: onnxruntime.InferenceSession
    operators: set[str]
    weights: set[str]
    size: int


def untrained(backbone: str) -> Caddm:
    """The network without any numbers in it, which takes no time."""
    with torch.device("meta"):
        network = find_detector(f"caddm-{backbone}").build()
    assert isinstance(network, Caddm)
    return network


def golden_of(backbone: str) -> Golden:
    return golden(f"caddm_{backbone.replace('-', '_')}")


@pytest.fixture(scope="module", params=WHOLE)
def case(request: pytest.FixtureRequest) -> Case:
    backbone: str = request.param
    network, expected = untrained(backbone), golden_of(backbone)
    network.load_state_dict(expected.tensors(), strict=True, assign=True)
    return Case(network.eval(), find_detector(f"caddm-{backbone}").spec, expected)


@pytest.fixture(scope="module")
def exported(case: Case) -> Exported:
    model = golden_graph(case.spec.name)
    operators = {node.op_type for node in model.graph.node}
    weights = {tensor.name for tensor in model.graph.initializer}
    data = model.SerializeToString()
    del model
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return Exported(session, operators, weights, len(data))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_tensors_are_those_of_the_published_checkpoint(backbone: str) -> None:
    keys = json.loads((FOLDER / golden_of(backbone).name / "keys.json").read_text())
    held = untrained(backbone).state_dict()
    assert [[name, list(value.shape), str(value.dtype)] for name, value in held.items()] == [
        [name, shape, f"torch.{dtype}"] for name, shape, dtype in keys
    ]


def test_scores_and_activations_are_those_of_the_authors(case: Case) -> None:
    check_answers(case.network, case.spec, case.expected)


@pytest.mark.parametrize("backbone", EFFICIENTNETS)
def test_the_first_activations_are_those_of_the_authors(backbone: str, tmp_path: Path) -> None:
    """The trunk and the first step of the ADM: a sixth of the weights, so they are made quickly."""
    expected, spec = golden_of(backbone), find_detector(f"caddm-{backbone}").spec
    ours = {"base_model": "0", "adm.adm_extra_layers.0": "1"}
    shutil.copytree(FOLDER / expected.name, tmp_path / expected.name)
    keys_file = tmp_path / expected.name / "keys.json"
    keys = [key for key in json.loads(keys_file.read_text()) if key[0].startswith(tuple(ours))]
    keys_file.write_text(json.dumps(keys))
    network = untrained(backbone)
    network.load_state_dict(golden_weights.state_dict(expected.name, tmp_path), strict=False, assign=True)
    figures = expected.expected["activations"]
    first = {name: values for name, values in figures.items() if name.startswith(tuple(ours))}
    assert len(first) == 9
    part = dataclasses.replace(expected, expected={**expected.expected, "activations": first})

    def name_of(name: str) -> str:
        start = next(start for start in ours if name.startswith(start))
        return name.replace(start, ours[start], 1)

    check_activations(nn.Sequential(network.base_model, network.adm.adm_extra_layers[0]), spec, part, names=name_of)


def test_the_exported_graph_gives_the_authors_scores_at_any_batch(case: Case, exported: Exported) -> None:
    faces = case.expected.inputs()
    logits, scores = exported.session.run(["logit", "score"], {"faces": faces})
    np.testing.assert_allclose(scores, case.expected.fake(), rtol=0, atol=1e-4)
    for number in range(2):
        logit, score = exported.session.run(["logit", "score"], {"faces": faces[number : number + 1]})
        assert logit == pytest.approx(logits[number : number + 1], abs=1e-5)
        assert score == pytest.approx(scores[number : number + 1], abs=1e-5)


def test_the_exported_graph_holds_no_more_than_a_test_needs(case: Case, exported: Exported) -> None:
    assert exported.operators.isdisjoint({"Shape", "Range", "Reshape", "ConstantOfShape", "Expand", "Where"})
    unused = ("base_model.fc.", "base_model._fc.", "multi_scale_detection_module.")
    assert [name for name in exported.weights if any(part in name for part in unused)] == []
    assert {"network.fc.weight", "network.adm.adm_extra_layers.3.conv2.weight"} <= exported.weights
    assert exported.size < PROTOBUF_LIMIT


@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (9, 8), (5, 6)])
@pytest.mark.parametrize(
    ("kernel", "stride", "before", "after"), [(1, 1, 0, 0), (3, 1, 1, 1), (5, 1, 2, 2), (3, 2, 0, 1), (5, 2, 1, 2)]
)
def test_padding_is_the_same_whatever_the_picture(
    kernel: int, stride: int, before: int, after: int, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    convolution = SameConv2d(4, 4, kernel, stride, groups=2, bias=True)
    picture = torch.rand(1, 4, *shape)
    framed = functional.pad(picture, (before, after, before, after))
    expected = functional.conv2d(framed, convolution.weight, convolution.bias, stride, groups=2)
    torch.testing.assert_close(convolution(picture), expected)


def test_anchors_are_those_that_the_authors_train_with() -> None:
    with np.load(FOLDER / "preprocessing" / "caddm_priors.npz") as archive:
        expected = archive["priors"]
    anchors = anchor_priors().numpy()
    assert anchors.dtype == expected.dtype
    np.testing.assert_allclose(anchors, expected, rtol=0, atol=1e-7)
