from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch

from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.i3d import AltFreezing
from deepscan.models.registry import find_detector
from tests.models.goldens import FOLDER, check_answers, golden, golden_graph

SPEC = find_detector("altfreezing").spec


@pytest.fixture(scope="module")
def network() -> AltFreezing:
    network = AltFreezing()
    network.load_state_dict(golden("altfreezing").tensors())
    return network.eval()


def test_the_parameters_are_the_authors(network: AltFreezing) -> None:
    expected = json.loads((FOLDER / "altfreezing" / "keys.json").read_text())
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert held == expected
    assert sum(value.numel() for value in network.parameters()) == 27_225_921


def test_the_scores_and_the_maps_on_the_way_are_the_authors(network: AltFreezing) -> None:
    check_answers(network, SPEC, golden("altfreezing"))


@pytest.mark.slow  # for its export
def test_the_exported_graph_gives_the_authors_scores_at_any_batch() -> None:
    model = golden_graph("altfreezing")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    clips = golden("altfreezing").inputs()
    both = session.run(["score"], {"clips": clips})[0]
    alone = session.run(["score"], {"clips": clips[1:]})[0]
    np.testing.assert_allclose(both, golden("altfreezing").fake(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(alone, both[1:], rtol=0, atol=1e-6)


def test_weights_of_deepfakebench_have_the_same_names() -> None:
    expected = json.loads((FOLDER / "other_keys" / "deepfakebench_altfreezing.json").read_text())
    with torch.device("meta"):
        network = AltFreezing()
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert held == expected


def test_deepfakebench_scores_clips_of_sixteen_frames(network: AltFreezing) -> None:
    spec = find_detector("altfreezing-deepfakebench").spec
    other = AltFreezing()
    other.load_state_dict(network.state_dict())
    seen: dict[str, torch.Tensor] = {}
    last, projection = (other.resnet.get_submodule(name) for name in ("s5", "head.projection"))
    last.register_forward_hook(lambda _part, _inputs, output: seen.update(last=output))
    clips = torch.from_numpy(golden("altfreezing").inputs()[:1, :16])
    with torch.inference_mode():
        logit, _ = ArtifactGraph(other, spec).eval()(clips)
        expected = projection(seen["last"].flatten(2).mean(2))
    assert seen["last"].shape == (1, 2048, 8, 7, 7)
    torch.testing.assert_close(logit, expected[:, 0], rtol=0, atol=1e-5)
