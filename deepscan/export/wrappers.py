"""The artefact contract around a detector's network; the network itself stays readable."""

from __future__ import annotations

import torch
from torch import nn

from deepscan.spec import DetectorSpec


class ArtefactGraph(nn.Module):
    """uint8 RGB in, logit and calibrated score out: layout, channel order and normalisation are inside.

    Args:
        network: maps normalised pictures [N, 3, H, W], or clips [N, 3, T, H, W], to the logit of *fake* [N].
        spec: of the detector.
    """

    def __init__(self, network: nn.Module, spec: DetectorSpec) -> None:
        super().__init__()
        self.network = network
        self.is_clip = spec.kind == "clip"
        self.reverses_channels = spec.channel_order == "BGR"
        self.scale, self.offset = spec.calibration.scale, spec.calibration.offset
        shape = (1, 3, 1, 1, 1) if self.is_clip else (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(spec.mean).view(shape))
        self.register_buffer("std", torch.tensor(spec.std).view(shape))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, H, W, 3] or [N, T, H, W, 3] -> logit float32 [N], score float32 [N]."""
        x = pixels.to(torch.float32)  # first of all: TensorRT can do nothing else with uint8
        x = x.permute(0, 4, 1, 2, 3) if self.is_clip else x.permute(0, 3, 1, 2)
        if self.reverses_channels:
            x = x.flip(1)
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        logit: torch.Tensor = self.network((x - mean) / std)
        return logit, torch.sigmoid(self.scale * logit + self.offset)
