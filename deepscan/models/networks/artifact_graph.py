"""The artifact contract around a detector's network; the network itself stays readable."""

from __future__ import annotations

import torch
from torch import nn

from deepscan.models.networks.lowering import Lowered
from deepscan.spec import DetectorSpec


class ArtifactGraph(nn.Module):
    """uint8 RGB in, logit and calibrated score out: layout, channel order and normalization are inside.

    Args:
        network: maps normalized pictures [N, 3, H, W], or clips [N, 3, T, H, W], to the logit of *fake* [N]; a lowered
            one takes clips [N, T, 3, H, W].
        spec: of the detector.
    """

    def __init__(self, network: nn.Module, spec: DetectorSpec) -> None:
        super().__init__()
        self.network = network
        self.reverses_channels = spec.channel_order == "BGR"
        self.scale, self.offset = spec.calibration.scale, spec.calibration.offset
        self.order: tuple[int, ...] = (0, 4, 1, 2, 3) if spec.kind == "clip" else (0, 3, 1, 2)
        if isinstance(network, Lowered):
            self.order = (0, 1, 4, 2, 3)
        self.channels = self.order.index(len(self.order) - 1)
        shape = [3 if axis == self.channels else 1 for axis in range(len(self.order))]
        self.subtracts, self.divides = any(spec.mean), any(value != 1.0 for value in spec.std)
        self.register_buffer("mean", torch.tensor(spec.mean).view(shape))
        self.register_buffer("std", torch.tensor(spec.std).view(shape))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, H, W, 3] or [N, T, H, W, 3] -> logit float32 [N], score float32 [N]."""
        x = pixels.to(torch.float32)  # first of all: TensorRT can do nothing else with uint8
        x = x.permute(self.order)
        if self.reverses_channels:
            x = x.flip(self.channels)
        if self.subtracts:
            x = x - self.get_buffer("mean")
        if self.divides:
            x = x / self.get_buffer("std")
        logit: torch.Tensor = self.network(x)
        return logit, torch.sigmoid(self.scale * logit + self.offset)
