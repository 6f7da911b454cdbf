"""The network that an artifact was exported from, with its weights; importing this imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from deepscan.errors import ModelError, UsageError
from deepscan.models.checkpoints.checkpoints import load_state
from deepscan.models.checkpoints.matching import COUNTER
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.lowering import can_be_lowered, lowered
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import EMBEDDED, HALF_SUFFIX

if TYPE_CHECKING:
    from torch import nn

    from deepscan.runtime.artifacts.artifacts import Artifact

PREFIX: Final = "network."  # what the graph of an artifact calls the network in `ArtifactGraph`


def artifact_graph(artifact: Artifact) -> ArtifactGraph:
    """Build the module that an artifact was traced from: the same network, weights and form.

    Raises:
        ModelError: see `network_of`.
    """
    network = network_of(artifact)
    spec = artifact.manifest.spec
    if artifact.manifest.form == "2d":
        if not can_be_lowered(network):
            raise ModelError(f"{artifact.manifest.file} is in a form that {spec.name} does not have: export it again.")
        network = lowered(network, frames=spec.frames)
    return ArtifactGraph(network, spec).eval()


def network_of(artifact: Artifact) -> nn.Module:
    """Build the network of an artifact's detector, and load its weights from the file beside the artifact.

    The detectors that come with the package have no such file. Their artifacts hold the weights without loss: they keep
    batch normalization, and store in half precision only what is exact in it.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        ModelError: no installed package has the network, or there are no weights beside the artifact, or they are not
            those that it was made of.
    """
    manifest = artifact.manifest
    try:
        network = find_detector(manifest.spec.name).build()
    except UsageError as error:
        raise ModelError(
            f"torch cannot run {manifest.file}, as no installed package has the network of {manifest.spec.name}: use "
            "another --backend."
        ) from error
    weights = manifest.network_weights
    if weights is not None and artifact.folder is not None:
        load_state(network, artifact.folder / weights.file, sha256=weights.sha256)
    elif manifest.spec.name in EMBEDDED and artifact.folder is None:
        _load_embedded(network, artifact)
    else:
        raise ModelError(
            f"{manifest.file} has no weights beside it, which torch needs: export the detector, or add its weights, "
            "again, or use another --backend."
        )
    return network.eval()


def _load_embedded(network: nn.Module, artifact: Artifact) -> None:
    """Give a network the weights that are in the graph of its artifact; unchanged if it has others.

    Raises:
        ModelError: the graph does not hold every tensor of the network.
    """
    stored = {
        tensor.name.removeprefix(PREFIX).removesuffix(HALF_SUFFIX): torch.from_numpy(
            numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in onnx.load_model_from_string(artifact.model).graph.initializer
        if tensor.name.startswith(PREFIX)
    }
    # Counters matter in training only, and are in no graph.
    shapes = {place: value.shape for place, value in network.state_dict().items() if not place.endswith(COUNTER)}
    lacking = [place for place, shape in shapes.items() if place not in stored or stored[place].shape != shape]
    if lacking:
        raise ModelError(
            f"{artifact.manifest.file}, which comes with deepscan, does not hold {lacking[0]}: reinstall deepscan."
        )
    network.load_state_dict({place: stored[place] for place in shapes}, strict=False, assign=True)
