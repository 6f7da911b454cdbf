"""Finds the weights inside a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from deepscan.errors import ModelError

# Under these names training scripts store weights: `network` (CADDM), `model` (RECCE), `state_dict` (allowed by
# AltFreezing's loader, and what several forks of DeepfakeBench write), the others in common retraining scripts.
CONTAINERS: Final = ("state_dict", "model_state_dict", "model", "network", "net", "ema", "model_ema")
DEEPEST: Final = 3
OPTIMIZER: Final = {"state", "param_groups"}
NAMES_SHOWN: Final = 5


def unwrapped(content: object, path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Find the one set of named tensors in what a checkpoint holds.

    Returns:
        The tensors by name, and where they are: `under 'state_dict'`, or nothing if they are at the top.

    Raises:
        ModelError: there is no such set, or there are several.
    """
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ModelError(f"{path} holds one object of the type {kind}, not named weights: give a state dict.")
    places = _places(content, ())
    if not places:
        if any(isinstance(part, dict) and part.keys() >= OPTIMIZER for part in (content, *content.values())):
            raise ModelError(f"{path} holds the state of an optimizer, not weights: give the file of the network.")
        names = ", ".join([str(name) for name in content][:NAMES_SHOWN])
        raise ModelError(
            f"{path} has no weights in the usual places (it has: {names or 'nothing'}): give a state dict."
        )
    if len(places) > 1:
        found = ", ".join(".".join(steps) or "the top" for steps, _ in places)
        raise ModelError(
            f"{path} holds several sets of weights (at {found}): save the one to use in a file of its own."
        )
    [(steps, tensors)] = places
    return tensors, f"under {'.'.join(steps)!r}" if steps else ""


def _places(content: object, steps: tuple[str, ...]) -> list[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Return every set of tensors that the known names lead to; a lone number is a step or a metric, not a weight."""
    if not isinstance(content, dict) or len(steps) > DEEPEST:
        return []
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    here = [(steps, tensors)] if any(value.ndim for value in tensors.values()) else []
    return here + [place for name in CONTAINERS for place in _places(content.get(name), (*steps, name))]
