"""Networks with random weights, for measuring speed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from deepscan.models.registry import BUILDERS
from deepscan.models.specs import SPECS

# Batch normalization needs more than one item, where maps are of a single place.
ITEMS = 2


def untrained_network(name: str, *, seed: int) -> nn.Module:
    """Build a detector with random weights, in evaluation mode; on one machine, equal seeds give equal weights.

    The statistics of batch normalization are taken from one pass over noise. Without them numbers shrink from layer to
    layer until they are denormal, which processors are very slow with.

    Args:
        name: of the detector, as in `BUILDERS`.
        seed: of the weights and the noise.
    """
    spec = SPECS[name]
    steps = (spec.frames,) if spec.kind == "clip" else ()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = BUILDERS[name]()
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = None  # the mean over all passes, which is one
        network.train()(torch.randn(ITEMS, 3, *steps, spec.size, spec.size))
    return network.eval()
