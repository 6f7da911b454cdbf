"""EfficientNet-Lite: EfficientNet without squeeze-excitation and with ReLU6, for integer-friendly inference.

Architecture: the TensorFlow TPU repository, `efficientnet/lite/efficientnet_lite_builder.py` (coefficients and
fixed stem and head), scaling rules of Tan & Le 2019, "EfficientNet", section 3.3. Convolutions pad as TensorFlow's
"same" does, which is asymmetric (nothing before, one more after) where the stride is 2 and the input even.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

BATCH_NORM_EPS = 1e-3
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class Stage:
    """One row of table 1 of the EfficientNet paper, before scaling."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    repeats: int


STAGES = (
    Stage(expansion=1, kernel=3, stride=1, channels=16, repeats=1),
    Stage(expansion=6, kernel=3, stride=2, channels=24, repeats=2),
    Stage(expansion=6, kernel=5, stride=2, channels=40, repeats=2),
    Stage(expansion=6, kernel=3, stride=2, channels=80, repeats=3),
    Stage(expansion=6, kernel=5, stride=1, channels=112, repeats=3),
    Stage(expansion=6, kernel=5, stride=2, channels=192, repeats=4),
    Stage(expansion=6, kernel=3, stride=1, channels=320, repeats=1),
)


def scaled_channels(channels: int, width: float) -> int:
    """Scale a channel count to a multiple of 8 that is not more than 10 % smaller than asked."""
    if width == 1.0:
        return channels
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow's "same" does; output is ceil(input / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        rows, columns = missing
        if rows % 2 or columns % 2:
            x = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            rows = columns = 0
        padding = (rows // 2, columns // 2)
        return functional.conv2d(x, self.weight, None, self.stride, padding, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise kxk, project 1x1; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands = expansion != 1
        self.adds_input = stride == 1 and inputs == outputs
        if self.expands:
            self.expand = SameConv2d(inputs, width, 1)
            self.bn0 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self.depthwise = SameConv2d(width, width, kernel, stride, groups=width)
        self.bn1 = nn.BatchNorm2d(width, eps=BATCH_NORM_EPS)
        self.project = SameConv2d(width, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        y: torch.Tensor = functional.relu6(self.bn0(self.expand(x))) if self.expands else x
        y = functional.relu6(self.bn1(self.depthwise(y)))
        y = self.bn2(self.project(y))
        return x + y if self.adds_input else y


class EfficientNetLite(nn.Module):
    """The network, with one linear output: the logit of *fake*.

    Args:
        width: multiplier of the channels (Lite2: 1.1).
        depth: multiplier of the repeats; first and last stage keep theirs (Lite2: 1.2).
    """

    def __init__(self, *, width: float, depth: float) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.bn0 = nn.BatchNorm2d(STEM_CHANNELS, eps=BATCH_NORM_EPS)
        blocks: list[InvertedResidual] = []
        inputs = STEM_CHANNELS
        for stage in STAGES:
            outputs = scaled_channels(stage.channels, width)
            fixed = stage is STAGES[0] or stage is STAGES[-1]
            for repeat in range(stage.repeats if fixed else math.ceil(stage.repeats * depth)):
                stride = stage.stride if repeat == 0 else 1
                block = InvertedResidual(inputs, outputs, expansion=stage.expansion, kernel=stage.kernel, stride=stride)
                blocks.append(block)
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = SameConv2d(inputs, HEAD_CHANNELS, 1)
        self.bn1 = nn.BatchNorm2d(HEAD_CHANNELS, eps=BATCH_NORM_EPS)
        self.fc = nn.Linear(HEAD_CHANNELS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized RGB [N, 3, H, W] -> logit of *fake* [N]."""
        x = functional.relu6(self.bn0(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = functional.relu6(self.bn1(self.head(x))).mean((2, 3))
        logit: torch.Tensor = self.fc(x)[:, 0]
        return logit
