"""EfficientNet with squeeze-and-excitation, as a trunk: a picture becomes a map at 1/32 of its size.

Architecture: Tan & Le 2019, "EfficientNet", table 1 and section 3.3, with the names and the padding of an early
version of the package `efficientnet_pytorch`, which CADDM carries (backbones/efficientnet_pytorch).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks.efficientnet_lite import (
    BATCH_NORM_EPS,
    HEAD_CHANNELS,
    STAGES,
    STEM_CHANNELS,
    scaled_channels,
)

SQUEEZE_RATIO = 0.25  # of the channels that enter the block, before they are expanded
CLASSES = 1000  # of ImageNet


class FixedSameConv2d(nn.Conv2d):
    """A convolution whose padding depends on kernel and stride only, never on the picture.

    Upstream (utils.py:122-145) works out TensorFlow's "same" padding once, for pictures of 300 (b3) or 380 (b4), and
    keeps it for every layer: as these sides are even, that is `kernel - stride` in all. What cannot be halved goes to
    the right and the bottom.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = False
    ) -> None:
        missing = kernel - stride
        super().__init__(inputs, outputs, kernel, stride, padding=missing // 2, groups=groups, bias=bias)
        self.is_lopsided = missing % 2 == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)] for even H and W, or for stride 1."""
        return super().forward(functional.pad(x, (0, 1, 0, 1)) if self.is_lopsided else x)


class SqueezedResidual(nn.Module):
    """Expand 1x1, depthwise kxk, weigh the channels by their means, project 1x1; added to the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width, squeezed = inputs * expansion, max(1, int(inputs * SQUEEZE_RATIO))
        self.expands = expansion != 1
        self.adds_input = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = FixedSameConv2d(inputs, width, 1)
            self._bn0 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self._depthwise_conv = FixedSameConv2d(width, width, kernel, stride, groups=width)
        self._bn1 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self._se_reduce = FixedSameConv2d(width, squeezed, 1, bias=True)
        self._se_expand = FixedSameConv2d(squeezed, width, 1, bias=True)
        self._project_conv = FixedSameConv2d(width, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        y: torch.Tensor = functional.silu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.silu(self._bn1(self._depthwise_conv(y)))
        means = y.mean((2, 3), keepdim=True)
        y = y * torch.sigmoid(self._se_expand(functional.silu(self._se_reduce(means))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds_input else y


class EfficientNet(nn.Module):
    """The trunk; the classes of ImageNet (`_fc`) are in checkpoints, but not used.

    Args:
        width: multiplier of the channels (b3: 1.2, b4: 1.4).
        depth: multiplier of the repeats (b3: 1.4, b4: 1.8).
    """

    def __init__(self, *, width: float, depth: float) -> None:
        super().__init__()
        inputs = scaled_channels(STEM_CHANNELS, width)
        self._conv_stem = FixedSameConv2d(3, inputs, 3, 2)
        self._bn0 = nn.BatchNorm2d(inputs, eps=BATCH_NORM_EPS)
        blocks: list[SqueezedResidual] = []
        for stage in STAGES:
            outputs = scaled_channels(stage.channels, width)
            for repeat in range(math.ceil(stage.repeats * depth)):
                stride = stage.stride if repeat == 0 else 1
                block = SqueezedResidual(inputs, outputs, expansion=stage.expansion, kernel=stage.kernel, stride=stride)
                blocks.append(block)
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self.channels = scaled_channels(HEAD_CHANNELS, width)
        self._conv_head = FixedSameConv2d(inputs, self.channels, 1)
        self._bn1 = nn.BatchNorm2d(self.channels, eps=BATCH_NORM_EPS)
        self._fc = nn.Linear(self.channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W], H and W multiples of 32 -> map [N, channels, H / 32, W / 32]."""
        x = functional.silu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.silu(self._bn1(self._conv_head(x)))
