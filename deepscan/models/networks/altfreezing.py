"""AltFreezing: a plain I3D ResNet-50 with one output. The name is that of its training schedule.

Wang et al. 2023, "AltFreezing for more general video face forgery detection" (CVPR). The network:
`model/classifier/i3d_ori.py` with `setting/i3d_ori.yaml`; the head: `slowfast/models/head_helper.py:74-95`.
"""

from __future__ import annotations

import torch
from torch import nn

from deepscan.models.networks.i3d import EXPANSION, I3D, STAGES


class Head(nn.Module):
    """The mean over time and space, then one linear output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels, T, H, W] -> logit [N]."""
        logit: torch.Tensor = self.projection(x.mean((2, 3, 4)))[:, 0]
        return logit


class AltFreezing(nn.Module):
    """The network; what the authors call `resnet` is all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = I3D(Head(STAGES[-1].inner * EXPANSION))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized RGB clips [N, 3, T, 224, 224] -> logit of *fake* [N]."""
        logit: torch.Tensor = self.resnet(x)
        return logit
