"""ResNet-34 as a trunk: a picture becomes a map of 512 channels at 1/32 of its size.

Architecture: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1, with the names of torchvision
and of CADDM (backbones/resnet.py).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

STEM_CHANNELS = 64
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # channels, blocks; each but the first begins with stride 2
CLASSES = 1000  # of ImageNet


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input, or to its 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet34(nn.Module):
    """The trunk; the classes of ImageNet (`fc`) are in checkpoints, but not used."""

    channels = STAGES[-1][0]

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        inputs = STEM_CHANNELS
        for number, (outputs, repeats) in enumerate(STAGES, start=1):
            first = BasicBlock(inputs, outputs, stride=1 if number == 1 else 2)
            others = [BasicBlock(outputs, outputs, stride=1) for _ in range(repeats - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
            inputs = outputs
        self.fc = nn.Linear(self.channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> map [N, 512, ceil(H / 32), ceil(W / 32)]."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x
