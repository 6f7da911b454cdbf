from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from deepscan.models.hff import deepfakebench_name
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.hff import FeatureNoise, Hff, NoiseAttention, PictureNoise
from deepscan.models.registry import find_detector
from tests.models.goldens import FOLDER, check_answers, golden, golden_graph

SPEC = find_detector("hff").spec
DEEPFAKEBENCH_KEYS: list[tuple[str, list[int], str]] = json.loads(
    (FOLDER / "other_keys" / "deepfakebench_srm.json").read_text()
)


@pytest.fixture(scope="module")
def network() -> Hff:
    network = Hff(fusion_residual=True)
    network.load_state_dict(golden("hff").tensors())
    return network.eval()


@pytest.fixture(scope="module")
def exported() -> onnx.ModelProto:
    return golden_graph("hff")


def test_the_parameters_are_the_authors(network: Hff) -> None:
    expected = json.loads((FOLDER / "hff" / "keys.json").read_text())
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert sorted(held) == sorted(expected)
    assert sum(value.numel() for value in network.parameters()) == 53_250_128


def test_the_scores_and_the_maps_on_the_way_are_the_authors(network: Hff) -> None:
    check_answers(network, SPEC, golden("hff"))


@pytest.mark.slow  # for its export
def test_the_exported_graph_gives_the_authors_scores_at_any_batch(exported: onnx.ModelProto) -> None:
    faces, expected = golden("hff").inputs(), golden("hff").fake()
    both, alone = _answers(exported, faces)
    np.testing.assert_allclose(both, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(alone, both, rtol=0, atol=1e-6)


@pytest.mark.slow  # for its export
def test_the_head_of_the_noise_stream_is_left_out_of_the_graph(exported: onnx.ModelProto) -> None:
    names = [weights.name for weights in exported.graph.initializer]
    assert sum("xception_rgb.model.last_linear" in name for name in names) == 2
    assert sum("xception_srm.model.last_linear" in name for name in names) == 0


def test_an_untrained_network_has_the_filters_of_the_authors() -> None:
    built: dict[str, Any] = {
        "srm_conv0": PictureNoise(),
        "srm_conv1": FeatureNoise(32),
        "srm_conv2": FeatureNoise(64),
        "srm_sa.srm": NoiseAttention().srm,
    }
    with np.load(FOLDER / "hff" / "overrides.npz") as overrides:
        for name, module in built.items():
            assert not module.kernel.requires_grad
            np.testing.assert_array_equal(module.kernel.numpy(), overrides[f"{name}.kernel"])


def test_every_key_of_deepfakebench_is_a_parameter_or_dropped_on_purpose() -> None:
    renamed = [(key, deepfakebench_name(key), shape) for key, shape, _ in DEEPFAKEBENCH_KEYS]
    dropped = {key for key, name, _ in renamed if name is None}
    adapters = {key for key, _, _ in renamed if key.startswith(("backbone_rgb.adjust_ch", "backbone_srm.adjust_ch"))}
    assert dropped == adapters | {"blur.weight"}
    assert len(dropped) == 15
    kept = [(name, shape) for _, name, shape in renamed if name is not None]
    with torch.device("meta"):
        network = Hff(fusion_residual=False)
    held = [(name, list(value.shape)) for name, value in network.state_dict().items()]
    assert sorted(kept) == sorted(held)


def test_weights_of_the_authors_do_not_load_as_those_of_deepfakebench(network: Hff) -> None:
    renamed = {deepfakebench_name(name) for name in network.state_dict()}
    assert not any(name in renamed for name in network.state_dict() if name.startswith("xception_"))


def test_deepfakebench_fuses_without_the_residual(network: Hff) -> None:
    spec = find_detector("hff-deepfakebench").spec
    other = Hff(fusion_residual=False)
    other.load_state_dict(network.state_dict())
    seen: dict[str, torch.Tensor] = {}
    parts = {"map": other.fusion.convblk, "weights": other.fusion.ca, "fused": other.fusion}
    for name, part in parts.items():
        part.register_forward_hook(lambda _part, _inputs, output, name=name: seen.update({name: output}))
    with torch.inference_mode():
        _, score = ArtifactGraph(other, spec).eval()(torch.from_numpy(golden("hff").inputs()[:1]))
    assert seen["fused"].shape == (1, 2048, 8, 8)
    torch.testing.assert_close(seen["fused"], seen["map"] * seen["weights"])
    assert abs(score.item() - golden("hff").fake()[0]) > 1e-2


def _answers(model: onnx.ModelProto, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The scores of all faces at once, and one by one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    both = session.run(["score"], {SPEC.input_name: faces})[0]
    alone = [session.run(["score"], {SPEC.input_name: face[None]})[0] for face in faces]
    return both, np.concatenate(alone)
