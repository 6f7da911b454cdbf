"""The 2-D form of the clip detectors: the same answers, in torch and as a graph, and nothing 3-D left in it."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from deepscan.errors import UsageError
from deepscan.export.forms import exported
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.ftcn import FTCN
from deepscan.models.networks.i3d import AltFreezing
from deepscan.models.networks.lowering import lowered
from deepscan.models.registry import find_detector
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from tests.models.goldens import golden, golden_graph
from tests.runtime.graphs import small_ftcn
from tests.runtime.tiny_detectors import TINY_CLIP, Brightness

SAME = 1e-5
SMALL = msgspec.structs.replace(find_detector("ftcn-deepfakebench").spec, size=TINY_CLIP.size)


@pytest.fixture(scope="module", params=["altfreezing", "ftcn"])
def network(request: pytest.FixtureRequest) -> AltFreezing | FTCN:
    """A clip detector with its golden weights."""
    name: str = request.param
    with torch.device("meta"):
        built = find_detector(name).build()
    built.load_state_dict(golden(name).tensors(), assign=True)
    assert isinstance(built, (AltFreezing, FTCN))
    return built.eval()


def name_of(network: nn.Module) -> str:
    return type(network).__name__.lower()


def probabilities(network: nn.Module, name: str, clips: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        score: torch.Tensor = ArtifactGraph(network, find_detector(name).spec).eval()(clips)[1]
    return score


def test_the_2d_form_gives_the_authors_numbers(network: AltFreezing | FTCN) -> None:
    name = name_of(network)
    clip = torch.from_numpy(golden(name).inputs()[:1])
    flat = probabilities(lowered(network, frames=find_detector(name).spec.frames), name, clip).numpy()
    np.testing.assert_allclose(flat, golden(name).fake()[:1], rtol=0, atol=SAME)


@pytest.mark.slow  # for its export
def test_the_graph_of_the_2d_form_gives_them_too(network: AltFreezing | FTCN) -> None:
    name = name_of(network)
    spec, clips = find_detector(name).spec, golden(name).inputs()
    artifact = packed(golden_graph(name, "2d"), spec, WeightsOrigin("golden", "0" * 64), form="2d")
    _refuse_3d(onnx.load_model_from_string(artifact.model), layers=40)
    backend = OnnxRuntimeBackend(artifact, device="cpu", threads=2, precision="fp32")
    logits = np.array([backend.logits(clip[None])[0] for clip in clips])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), golden(name).fake(), rtol=0, atol=SAME)


def _refuse_3d(model: onnx.ModelProto, *, layers: int) -> None:
    shapes = {tensor.name: numpy_helper.to_array(tensor).shape for tensor in model.graph.initializer}
    widened = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    assert len(kernels) > layers
    assert {len(shapes[widened.get(kernel, kernel)]) for kernel in kernels} == {4}
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]


@pytest.mark.slow  # for the size of its clips
def test_the_variants_of_sixteen_frames_are_lowered_too(network: AltFreezing | FTCN) -> None:
    name = f"{name_of(network)}-deepfakebench"
    other = find_detector(name).build().eval()
    assert isinstance(other, (AltFreezing, FTCN))
    other.load_state_dict(network.state_dict())
    clips = torch.from_numpy(golden(name_of(network)).inputs()[:1, :16])
    flat = probabilities(lowered(other, frames=16), name, clips)
    torch.testing.assert_close(flat, probabilities(other, name, clips), rtol=0, atol=SAME)


def test_the_network_itself_is_not_changed(network: AltFreezing | FTCN) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    lowered(network, frames=32)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.slow  # exports a clip detector in both forms
def test_auto_says_what_it_measured() -> None:
    made = exported(small_ftcn(frame_pool=1), SMALL, "auto")
    assert made.form in ("2d", "3d")
    for form in ("3d", "2d"):
        assert re.search(rf"{form} \d+\.\d+ s per clip on onnxruntime-cpu fp32", made.reason)


@pytest.mark.slow  # exports
def test_for_an_engine_auto_is_2d_and_measures_nothing() -> None:
    made = exported(small_ftcn(frame_pool=1), SMALL, "auto", for_engine=True)
    _refuse_3d(made.model, layers=5)
    assert (made.form, made.reason) == ("2d", "engines have fast 2-D kernels for every precision; not measured")


def test_other_networks_have_one_form() -> None:
    assert exported(Brightness(), TINY_CLIP, "auto").form is None
    with pytest.raises(UsageError, match="leave out --form"):
        exported(Brightness(), TINY_CLIP, "2d")
