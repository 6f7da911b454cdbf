"""The weights of the detectors that come with the package, read back from their artifacts."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from deepscan.errors import ModelError
from deepscan.export.half_weights import HALF_SUFFIX
from deepscan.export.packing import WeightsOrigin
from deepscan.models.checkpoints.matching import COUNTER
from deepscan.runtime.artifacts.artifacts import load_artifact

# What the traced wrapper calls the network in it; see `deepscan.models.networks.artifact_graph`.
NETWORK = "network."


def load_embedded(network: nn.Module, name: str) -> WeightsOrigin:
    """Give a network the weights inside the embedded artifact, which are the trained ones, without loss.

    A float32 artifact keeps batch normalization and stores as float16 only what is exact in it.

    Args:
        network: takes the weights, in place, and is put in evaluation mode.
        name: of the embedded detector that `network` is.

    Returns:
        The file that the weights once came from, by its hash: an export of these weights has the same.

    Raises:
        ModelError: the artifact is damaged, or does not hold every tensor of the network.
    """
    artifact = load_artifact(name)
    stored = _stored_tensors(onnx.load_model_from_string(artifact.model))
    # Counters only matter in training, and are not in a graph.
    places = {place: tensor for place, tensor in network.state_dict().items() if not place.endswith(COUNTER)}
    lacking = [place for place, tensor in places.items() if stored.get(place, _NOTHING).shape != tensor.shape]
    if lacking:
        raise ModelError(
            f"{artifact.manifest.file}, which comes with deepscan, does not hold {lacking[0]}: reinstall deepscan."
        )
    network.load_state_dict({place: stored[place] for place in places}, strict=False)
    network.eval()
    manifest = artifact.manifest
    return WeightsOrigin(manifest.weights_file, manifest.weights_sha256, manifest.trained)


_NOTHING = torch.empty(0)


def _stored_tensors(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Return the initializers that belong to the network, as float32, by the network's own names."""
    return {
        tensor.name.removeprefix(NETWORK).removesuffix(HALF_SUFFIX): torch.from_numpy(
            numpy_helper.to_array(tensor).astype(np.float32)
        )
        for tensor in model.graph.initializer
        if tensor.name.startswith(NETWORK)
    }
