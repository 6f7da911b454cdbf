"""Noise residuals for HFF: three fixed filters of the Spatial Rich Model, alone and inside small modules.

The filters are those of Fridrich & Kodovsky 2012, "Rich Models for Steganalysis of Digital Images", as chosen by
HFF (src/components/srm_conv.py:26-118). They are parameters that no training changes, and part of checkpoints.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

SIDE: Final = 5
FILTERS: Final = 3
CLAMP: Final = 3.0  # residuals are cut to -3..3


def srm_filters() -> torch.Tensor:
    """Return the three filters: float32 [3, 5, 5], on the CPU whatever the default device is."""
    with torch.device("cpu"):  # arithmetic on the meta device would load a compiler
        return _srm_filters()


def _srm_filters() -> torch.Tensor:
    bend = torch.tensor([1.0, -2.0, 1.0])  # second difference
    horizontal = torch.zeros(SIDE, SIDE)
    horizontal[2, 1:4] = bend / 2
    # Second difference in both directions ("KB"), predicting the center from the eight places around it.
    around = torch.zeros(SIDE, SIDE)
    around[1:4, 1:4] = -torch.outer(bend, bend) / 4
    # The same of a higher order ("KV"), from the twenty-four places around it.
    wide = torch.tensor(
        [
            [-1.0, 2.0, -2.0, 2.0, -1.0],
            [2.0, -6.0, 8.0, -6.0, 2.0],
            [-2.0, 8.0, -12.0, 8.0, -2.0],
            [2.0, -6.0, 8.0, -6.0, 2.0],
            [-1.0, 2.0, -2.0, 2.0, -1.0],
        ]
    )
    return torch.stack([around, wide / 12, horizontal])


class PictureNoise(nn.Module):
    """The three residuals of a picture, each summed over its three channels."""

    def __init__(self) -> None:
        super().__init__()
        kernel = srm_filters()[:, None].repeat(1, 3, 1, 1)
        self.kernel = nn.Parameter(kernel, requires_grad=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 3, H, W] in -3..3."""
        return functional.conv2d(pictures, self.kernel, padding=SIDE // 2).clamp(-CLAMP, CLAMP)


class FeatureNoise(nn.Module):
    """Residuals of each channel of a map, mixed back to as many channels.

    Each channel gives three residuals. The authors lay out the filters as `channels` times the first, then the
    second, then the third, while a grouped convolution takes three neighboring rows for each channel: so a channel
    is filtered three times alike, the first third of the channels with the first filter, and so on (mixed at the
    seams). Trained weights depend on it, so it stays.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        kernel = srm_filters().repeat_interleave(channels, dim=0)[:, None]
        self.kernel = nn.Parameter(kernel, requires_grad=False)
        self.out_conv = nn.Sequential(
            nn.Conv2d(FILTERS * channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels, H, W] -> [N, channels, H, W], not negative."""
        residuals = functional.conv2d(x, self.kernel, padding=SIDE // 2, groups=self.channels)
        y: torch.Tensor = self.out_conv(residuals.clamp(-CLAMP, CLAMP))
        return y


class PlaceWeights(nn.Module):
    """The weight of each place, from the mean and the maximum over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, 1, H, W] in 0..1."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(summary))


class NoiseAttention(nn.Module):
    """Where to look, according to the noise: the paper calls it residual guided spatial attention."""

    def __init__(self) -> None:
        super().__init__()
        self.srm = PictureNoise()
        self.conv = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.pa = PlaceWeights()

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """[N, 3, 256, 256] residuals, filtered here a second time as upstream does -> [N, 1, 125, 125] in 0..1."""
        weights: torch.Tensor = self.pa(self.conv(self.srm(noise)))
        return weights
