from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.recce import GraphReasoning, Recce
from deepscan.models.recce import deepfakebench_name
from deepscan.models.registry import find_detector
from tests.models.goldens import FOLDER, check_answers, golden, golden_graph

SPEC = find_detector("recce").spec
DEEPFAKEBENCH_KEYS: list[tuple[str, list[int], str]] = json.loads(
    (FOLDER / "other_keys" / "deepfakebench_recce.json").read_text()
)


@pytest.fixture(scope="module")
def network() -> Recce:
    network = Recce(classes=1)
    network.load_state_dict(golden("recce").tensors())
    return network.eval()


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return golden_graph("recce")


def test_the_parameters_are_the_authors(network: Recce) -> None:
    expected = json.loads((FOLDER / "recce" / "keys.json").read_text())
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert sorted(held) == sorted(expected)
    assert sum(value.numel() for value in network.parameters()) == 25_830_509


def test_the_scores_and_the_maps_on_the_way_are_the_authors(network: Recce) -> None:
    check_answers(network, SPEC, golden("recce"))


@pytest.mark.slow  # for its export
def test_the_exported_graph_gives_the_authors_scores_at_any_batch(exported: onnx.ModelProto) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(exported.SerializeToString(), options, providers=["CPUExecutionProvider"])
    faces, expected = golden("recce").inputs(), golden("recce").fake()
    both = session.run(["score"], {SPEC.input_name: faces})[0]
    alone = [session.run(["score"], {SPEC.input_name: face[None]})[0] for face in faces]
    np.testing.assert_allclose(both, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(alone), both, rtol=0, atol=1e-6)


@pytest.mark.slow  # for its export
def test_the_graph_has_no_loop_over_places_and_no_imagenet_classifier(exported: onnx.ModelProto) -> None:
    assert len(exported.graph.node) < 500
    names = [weights.name for weights in exported.graph.initializer]
    assert sum(name.endswith("network.fc.weight") for name in names) == 1
    assert sum("encoder.fc" in name for name in names) == 0


def test_reasoning_is_that_of_a_loop_over_the_places() -> None:
    torch.manual_seed(0)
    reasoning = GraphReasoning()
    with torch.no_grad():
        for parameter in reasoning.parameters():
            parameter.mul_(4.0)  # else the weights of a patch hardly differ, nor the gates
    coarse, middle, fine = torch.randn(2, 728, 3, 2), torch.randn(2, 256, 6, 4), torch.randn(2, 128, 12, 8)
    with torch.inference_mode():
        torch.testing.assert_close(
            reasoning(coarse, middle, fine), looped(reasoning, coarse, middle, fine), rtol=0, atol=2e-4
        )


def looped(reasoning: GraphReasoning, coarse: torch.Tensor, middle: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """The definition, item by item, place by place and, in the patch under it, row by row."""
    weights = dict(reasoning.named_parameters())
    places = reasoning.va_embedding(coarse)
    joined = torch.empty(len(coarse), 768, *coarse.shape[2:])
    for number, row, column in np.ndindex(len(coarse), *coarse.shape[2:]):
        place, above = places[number, :, row, column], coarse[number, :, row, column]
        joined[number, 512:, row, column] = place
        finer = [("b", middle, 2, slice(0, 256)), ("c", fine, 4, slice(256, 512))]
        for letter, features, side, channels in finer:
            beneath = [
                weights[f"v{letter}_embedding.2.weight"]
                @ functional.relu(
                    weights[f"v{letter}_embedding.0.weight"]
                    @ features[number, :, row * side + down, column * side + right]
                )
                for down, right in np.ndindex(side, side)
            ]
            pair_weight = weights[f"reweight_a{letter}.0.weight"]
            match = torch.cat([functional.relu(pair_weight @ torch.cat([place, each])) for each in beneath])
            total = sum((part * each for part, each in zip(match.softmax(0), beneath, strict=True)), torch.zeros(256))
            gate = 1 - torch.sigmoid(weights[f"va_gated_{letter}.0.weight"][:, :, 0, 0] @ above)
            joined[number, channels, row, column] = total * gate
    output: torch.Tensor = reasoning.reproject(joined.sigmoid())
    return output


def test_every_key_of_deepfakebench_is_a_parameter_or_dropped_on_purpose() -> None:
    renamed = [(key, deepfakebench_name(key), shape) for key, shape, _ in DEEPFAKEBENCH_KEYS]
    dropped = [key for key, name, _ in renamed if name is None]
    assert dropped == [key for key, _, _ in renamed if key.startswith("backbone.")]
    assert len(dropped) == 283
    kept = [(name, shape) for _, name, shape in renamed if name is not None]
    with torch.device("meta"):
        network = Recce(classes=2)
    held = [(name, list(value.shape)) for name, value in network.state_dict().items()]
    assert sorted(kept) == sorted(held)


def test_deepfakebench_has_two_classes_and_pictures_of_256(network: Recce) -> None:
    spec = find_detector("recce-deepfakebench").spec
    torch.manual_seed(0)
    other = Recce(classes=2).eval()
    head = {f"fc.{name}": value for name, value in other.fc.state_dict().items()}
    other.load_state_dict(network.state_dict() | head)
    seen: dict[str, torch.Tensor] = {}
    for name in ("encoder.block4", "decoder6", "fc"):
        part = other.get_submodule(name)
        part.register_forward_hook(lambda _part, _inputs, output, name=name: seen.update({name: output}))
    faces = torch.from_numpy(golden("hff").inputs())
    with torch.inference_mode():
        _, score = ArtifactGraph(other, spec).eval()(faces)
    assert seen["encoder.block4"].shape == (2, 728, 16, 16)
    assert seen["decoder6"].shape == (2, 3, 128, 128)
    assert seen["fc"].shape == (2, 2)
    torch.testing.assert_close(score, seen["fc"].softmax(1)[:, 1])
