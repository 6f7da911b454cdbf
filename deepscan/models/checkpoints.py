"""Weights from files: safetensors only, matched strictly against the module that takes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load
from torch import nn

from deepscan.errors import ModelError

NAMES_SHOWN = 3
TRAINING_ONLY = ".num_batches_tracked"


def load_weights(module: nn.Module, path: Path) -> str:
    """Load a safetensors file into `module`, every tensor by its exact name and shape.

    Half-precision tensors are widened to the module's type, which is exact.

    Args:
        module: takes the weights, in place, and is put in evaluation mode.
        path: the safetensors file.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: the file cannot be read, or its tensors are not the module's.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path of the weights.") from error
    try:
        tensors = load(data)
    except safetensors.SafetensorError as error:
        message = f"{path} is not a safetensors file ({error}): give weights in that format."
        raise ModelError(message) from error
    _match(module, tensors, path)
    module.load_state_dict(tensors)
    module.eval()
    return hashlib.sha256(data).hexdigest()


def _match(module: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raise one sentence that names the first few differences."""
    # BatchNorm's step counter is a training matter; published weights often leave it out.
    expected = {name: value for name, value in module.state_dict().items() if not name.endswith(TRAINING_ONLY)}
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - module.state_dict().keys()),
        "misshapen": sorted(
            name for name in expected.keys() & tensors.keys() if expected[name].shape != tensors[name].shape
        ),
    }
    found = [f"{len(names)} {what} ({_first(names)})" for what, names in problems.items() if names]
    if found:
        kind = type(module).__name__
        raise ModelError(f"{path} does not hold the weights of {kind}: {'; '.join(found)} - give the right file.")


def _first(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
