from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch

from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.ftcn import FTCN
from deepscan.models.networks.i3d import layer
from deepscan.models.registry import find_detector
from tests.models.goldens import FOLDER, check_answers, golden, golden_graph

SPEC = find_detector("ftcn").spec


@pytest.fixture(scope="module")
def network() -> FTCN:
    network = FTCN(frame_pool=2)
    network.load_state_dict(golden("ftcn").tensors())
    return network.eval()


def test_the_parameters_are_the_authors(network: FTCN) -> None:
    expected = json.loads((FOLDER / "ftcn" / "keys.json").read_text())
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert held == expected
    assert sum(value.numel() for value in network.parameters()) == 14_765_889


def test_the_scores_and_the_maps_on_the_way_are_the_authors(network: FTCN) -> None:
    check_answers(network, SPEC, golden("ftcn"))


@pytest.mark.slow  # for its export
def test_the_exported_graph_gives_the_authors_scores_at_any_batch() -> None:
    model = golden_graph("ftcn")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    clips = golden("ftcn").inputs()
    both = session.run(["score"], {"clips": clips})[0]
    alone = session.run(["score"], {"clips": clips[1:]})[0]
    np.testing.assert_allclose(both, golden("ftcn").fake(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(alone, both[1:], rtol=0, atol=1e-6)


def test_the_maximum_is_of_what_the_normalization_gives() -> None:
    convolution, norm = layer(1, 1, stride=2, temporal_only=True)
    torch.nn.init.ones_(convolution.weight)
    torch.nn.init.constant_(norm.get_parameter("0.weight"), -1.0)
    with torch.inference_mode():
        pooled = norm.eval()(convolution(torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 1, 2, 2)))
    assert pooled.item() == pytest.approx(-1.0, abs=1e-4)


def test_weights_of_deepfakebench_have_the_same_names() -> None:
    expected = json.loads((FOLDER / "other_keys" / "deepfakebench_ftcn.json").read_text())
    with torch.device("meta"):
        network = FTCN(frame_pool=1)
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert held == expected


def test_deepfakebench_pools_no_frames(network: FTCN) -> None:
    spec = find_detector("ftcn-deepfakebench").spec
    other = FTCN(frame_pool=1)
    other.load_state_dict(network.state_dict())
    seen: dict[str, torch.Tensor] = {}
    for name in ("s2", "pathway0_pool", "s4"):
        part = other.resnet.get_submodule(name)
        part.register_forward_hook(lambda _part, _inputs, output, name=name: seen.update({name: output}))
    with torch.inference_mode():
        logit, _ = ArtifactGraph(other, spec).eval()(torch.from_numpy(golden("ftcn").inputs()[:1, :16]))
    assert seen["s4"].shape == (1, 1024, 16, 14, 14)
    assert torch.equal(seen["s2"], seen["pathway0_pool"])
    assert logit.shape == (1,)
    assert logit.isfinite().all()


def test_the_authors_form_takes_no_clip_of_sixteen_frames() -> None:
    with torch.device("meta"):
        network = FTCN(frame_pool=2).eval()
        with pytest.raises(RuntimeError, match="17"):
            network(torch.zeros(1, 3, 16, 224, 224))
        assert network(torch.zeros(3, 3, 32, 224, 224)).shape == (3,)
