"""Golden tests: networks with weights by recipe, against the outputs and activations of the authors' own code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from deepscan.export.forms import graph_of
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.lowering import can_be_lowered, lowered
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import Form
from deepscan.spec import DetectorSpec
from tests.goldens import golden_inputs, golden_weights
from tests.shared import made_once

FOLDER = Path(golden_weights.__file__).parent
# Activations are given with nine digits from a float64 run; float32 drifts by more in deep layers: see
# "activations_f32_against_f64" in each expected.json, the largest difference of the authors' own float32 run.
ACTIVATION_SLACK = 4.0


@dataclass(frozen=True)
class Golden:
    """One golden: what the authors' code answers for weights and inputs made by a recipe."""

    name: str
    meta: dict[str, Any]
    expected: dict[str, Any]

    def tensors(self) -> dict[str, torch.Tensor]:
        tensors = golden_weights.state_dict(self.name, FOLDER)
        assert golden_weights.fingerprint(tensors) == self.meta["weights_sha256"]
        return tensors

    def inputs(self) -> NDArray[np.uint8]:
        batch = golden_inputs.inputs(self.name, FOLDER)
        assert golden_inputs.sha256(batch) == self.expected["input_sha256"]
        return batch

    def fake(self) -> NDArray[np.float64]:
        return np.array(self.expected["fake_f64"])


@cache
def golden(name: str) -> Golden:
    folder = FOLDER / name
    return Golden(
        name,
        json.loads((folder / "meta.json").read_text()),
        json.loads((folder / "expected.json").read_text()),
    )


def golden_network(name: str) -> nn.Module:
    """Return a detector with its golden weights, ready to answer."""
    with torch.device("meta"):
        network = find_detector(name).build()
    network.load_state_dict(golden(name.replace("-", "_")).tensors(), assign=True)
    return network.eval()


def golden_graph(name: str, form: Form | None = None) -> onnx.ModelProto:
    """Return the graph of a detector with its golden weights, which is traced once for all tests of a run.

    Args:
        name: of the detector.
        form: of a clip detector's convolutions; 2-D ones are lowered.
    """

    def trace(path: Path) -> None:
        network, spec = golden_network(name), find_detector(name).spec
        if form == "2d":
            assert can_be_lowered(network)
            network = lowered(network, frames=spec.frames)
        path.write_bytes(graph_of(network, spec).SerializeToString())

    return onnx.load_model(str(made_once(f"{name}{'-2d' if form == '2d' else ''}.onnx", trace)))


def check_answers(network: nn.Module, spec: DetectorSpec, expected: Golden) -> None:
    """The authors' float64 results: the probability of *fake* within the golden's tolerance, and every activation.

    One run gives both, as the clip detectors take seconds for a clip.
    """
    with _activations(network, expected) as seen, torch.inference_mode():
        logit, score = ArtifactGraph(network, spec).eval()(torch.from_numpy(expected.inputs()))
    assert logit.shape == score.shape == (2,)
    np.testing.assert_allclose(score.numpy(), expected.fake(), rtol=0, atol=expected.expected["tolerance"])
    _compare(seen, expected)


def check_activations(
    network: nn.Module, spec: DetectorSpec, expected: Golden, *, names: Callable[[str], str] = str
) -> None:
    """Every activation that the golden holds agrees; `names` turns upstream's module names into ours."""
    with _activations(network, expected, names) as seen, torch.inference_mode():
        ArtifactGraph(network, spec).eval()(torch.from_numpy(expected.inputs()[:1]))
    _compare(seen, expected)


@contextmanager
def _activations(
    network: nn.Module, expected: Golden, names: Callable[[str], str] = str
) -> Iterator[dict[str, torch.Tensor]]:
    """Within this, keep what the modules that the golden names give for the first input."""
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        network.get_submodule(names(name)).register_forward_hook(_keep(name, seen))
        for name in expected.expected["activations"]
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _compare(seen: dict[str, torch.Tensor], expected: Golden) -> None:
    for name, figures in expected.expected["activations"].items():
        got = seen[name].double()
        assert list(got.shape) == figures["shape"], name
        slack = ACTIVATION_SLACK * expected.expected["activations_f32_against_f64"][name] + 1e-6
        flat = got.flatten()
        spread = [flat[i * flat.numel() // 8].item() for i in range(8)]
        assert spread == pytest.approx(figures["spread8"], abs=slack), name
        assert flat[:8].tolist() == pytest.approx(figures["first8"], abs=slack), name
        assert flat.mean().item() == pytest.approx(figures["mean"], abs=slack), name
        assert flat.std(correction=0).item() == pytest.approx(figures["std"], abs=slack), name


def _keep(name: str, seen: dict[str, torch.Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen[name] = (output[0] if isinstance(output, tuple) else output)[:1].detach()

    return hook
