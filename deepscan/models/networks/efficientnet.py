"""EfficientNet with squeeze-and-excitation, the trunk of CADDM, and EfficientNet-Lite, the network of `lite`.

Architecture: Tan & Le 2019, "EfficientNet", table 1 and section 3.3. The trunk has the names and the padding of an
early version of the package `efficientnet_pytorch`, which CADDM carries (backbones/efficientnet_pytorch). Lite has no
squeeze-and-excitation, ReLU6, and a fixed stem and head, for integer-friendly inference (the TensorFlow TPU repository,
`efficientnet/lite/efficientnet_lite_builder.py`).
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

BATCH_NORM_EPS = 1e-3
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
SQUEEZE_RATIO = 0.25  # of the channels that enter the block, before they are expanded
CLASSES = 1000  # of ImageNet


# Table 1 of the paper, before scaling: expansion, kernel, stride, channels, repeats.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def scaled_channels(channels: int, width: float) -> int:
    """Scale a channel count to a multiple of 8 that is not more than 10 % smaller than asked."""
    if width == 1.0:
        return channels
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def blocks(
    kind: type[InvertedResidual | SqueezedResidual], inputs: int, *, width: float, depth: float, keeps_ends: bool
) -> nn.ModuleList:
    """Return the blocks of all stages.

    Args:
        kind: class of the blocks.
        inputs: channels of the stem.
        width: multiplier of the channels.
        depth: multiplier of the repeats.
        keeps_ends: whether the first and the last stage keep their repeats, as in Lite.
    """
    made = nn.ModuleList()
    for number, (expansion, kernel, stride, channels, repeats) in enumerate(STAGES, 1):
        outputs = scaled_channels(channels, width)
        keeps = keeps_ends and number in (1, len(STAGES))
        for repeat in range(repeats if keeps else math.ceil(repeats * depth)):
            step = stride if repeat == 0 else 1
            made.append(kind(inputs, outputs, expansion=expansion, kernel=kernel, stride=step))
            inputs = outputs
    return made


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return the normalization behind a convolution."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


class SameConv2d(nn.Conv2d):
    """A convolution whose padding depends on kernel and stride only, never on the picture.

    For even sides, and at stride 1, TensorFlow's "same" padding is `kernel - stride` in all; what cannot be halved goes
    to the right and the bottom. CADDM's code (utils.py:122-145) works it out once, for pictures of 300 (b3) or 380
    (b4), and keeps it for every layer.
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
            self._expand_conv = SameConv2d(inputs, width, 1)
            self._bn0 = batch_norm(width)
        self._depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self._bn1 = batch_norm(width)
        self._se_reduce = SameConv2d(width, squeezed, 1, bias=True)
        self._se_expand = SameConv2d(squeezed, width, 1, bias=True)
        self._project_conv = SameConv2d(width, outputs, 1)
        self._bn2 = batch_norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        y: torch.Tensor = functional.silu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.silu(self._bn1(self._depthwise_conv(y)))
        means = y.mean((2, 3), keepdim=True)
        y = y * torch.sigmoid(self._se_expand(functional.silu(self._se_reduce(means))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds_input else y


class EfficientNet(nn.Module):
    """The trunk: a picture becomes a map; the classes of ImageNet (`_fc`) are in checkpoints, but not used.

    Args:
        width: multiplier of the channels (b3: 1.2, b4: 1.4).
        depth: multiplier of the repeats (b3: 1.4, b4: 1.8).
    """

    def __init__(self, *, width: float, depth: float) -> None:
        super().__init__()
        stem = scaled_channels(STEM_CHANNELS, width)
        self._conv_stem = SameConv2d(3, stem, 3, 2)
        self._bn0 = batch_norm(stem)
        self._blocks = blocks(SqueezedResidual, stem, width=width, depth=depth, keeps_ends=False)
        self.channels = scaled_channels(HEAD_CHANNELS, width)
        self._conv_head = SameConv2d(scaled_channels(STAGES[-1][3], width), self.channels, 1)
        self._bn1 = batch_norm(self.channels)
        self._fc = nn.Linear(self.channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W], H and W multiples of 32 -> map [N, channels, H / 32, W / 32]."""
        x = functional.silu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.silu(self._bn1(self._conv_head(x)))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise kxk, project 1x1; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands = expansion != 1
        self.adds_input = stride == 1 and inputs == outputs
        if self.expands:
            self.expand = SameConv2d(inputs, width, 1)
            self.bn0 = batch_norm(width)
        self.depthwise = SameConv2d(width, width, kernel, stride, groups=width)
        self.bn1 = batch_norm(width)
        self.project = SameConv2d(width, outputs, 1)
        self.bn2 = batch_norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        y: torch.Tensor = functional.relu6(self.bn0(self.expand(x))) if self.expands else x
        y = functional.relu6(self.bn1(self.depthwise(y)))
        y = self.bn2(self.project(y))
        return x + y if self.adds_input else y


class EfficientNetLite(nn.Module):
    """The network of `lite`, with one linear output: the logit of *fake*.

    Args:
        width: multiplier of the channels between stem and head (Lite2: 1.1).
        depth: multiplier of the repeats (Lite2: 1.2).
    """

    def __init__(self, *, width: float, depth: float) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.bn0 = batch_norm(STEM_CHANNELS)
        self.blocks = blocks(InvertedResidual, STEM_CHANNELS, width=width, depth=depth, keeps_ends=True)
        self.head = SameConv2d(scaled_channels(STAGES[-1][3], width), HEAD_CHANNELS, 1)
        self.bn1 = batch_norm(HEAD_CHANNELS)
        self.fc = nn.Linear(HEAD_CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized RGB [N, 3, H, W], H and W multiples of 32 -> logit of *fake* [N]."""
        x = functional.relu6(self.bn0(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = functional.relu6(self.bn1(self.head(x))).mean((2, 3))
        logit: torch.Tensor = self.fc(x)[:, 0]
        return logit
