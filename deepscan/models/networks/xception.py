"""Xception, the trunk that HFF and RECCE share: separable convolutions in twelve residual blocks.

Architecture: Chollet 2017, "Xception", figure 5, in the widely used PyTorch port, whose parameter names the
checkpoints carry. The parts are public methods, because both detectors work on the maps between them.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

FEATURES: Final = 2048  # channels of the last map


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution over the channels; no biases."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        y: torch.Tensor = self.pointwise(self.conv1(x))
        return y


class Block(nn.Module):
    """Repeats of ReLU, separable convolution and batch normalization, added to a shortcut.

    The shortcut is the input itself, or its 1x1 convolution where the block halves the map or changes the channels.

    Args:
        inputs: channels.
        outputs: channels.
        repeats: how many separable convolutions.
        halves: whether the map shrinks to half, by a maximum over 3x3.
        leading_relu: False leaves out the first ReLU (after a convolution that has just had one).
        widens_last: whether the last convolution changes the number of channels, rather than the first.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        repeats: int,
        halves: bool = False,
        leading_relu: bool = True,
        widens_last: bool = False,
    ) -> None:
        super().__init__()
        self.projects = halves or inputs != outputs
        if self.projects:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride=2 if halves else 1, bias=False)
            self.skipbn = nn.BatchNorm2d(outputs)
        widening = repeats - 1 if widens_last else 0
        layers: list[nn.Module] = []
        for repeat in range(repeats):
            if repeat > 0 or leading_relu:
                layers.append(nn.ReLU())
            before = inputs if repeat <= widening else outputs
            after = inputs if repeat < widening else outputs
            layers += [SeparableConv2d(before, after), nn.BatchNorm2d(after)]
        if halves:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        self.rep = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W], or [N, outputs, ceil(H / 2), ceil(W / 2)] where it halves."""
        shortcut = self.skipbn(self.skip(x)) if self.projects else x
        y: torch.Tensor = self.rep(x) + shortcut
        return y


class Xception(nn.Module):
    """The trunk, without a classifier. Sizes of the maps are those for a picture of 299 (of 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = Block(64, 128, repeats=2, halves=True, leading_relu=False)
        self.block2 = Block(128, 256, repeats=2, halves=True)
        self.block3 = Block(256, 728, repeats=2, halves=True)
        for number in range(4, 12):
            self.add_module(f"block{number}", Block(728, 728, repeats=3))
        self.block12 = Block(728, 1024, repeats=2, halves=True, widens_last=True)
        self.conv3 = SeparableConv2d(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConv2d(1536, FEATURES)
        self.bn4 = nn.BatchNorm2d(FEATURES)

    def first_convolution(self, pictures: torch.Tensor) -> torch.Tensor:
        """[N, 3, S, S] -> [N, 32, 149, 149] (127)."""
        return functional.relu(self.bn1(self.conv1(pictures)))

    def second_convolution(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 32, 149, 149] (127) -> [N, 64, 147, 147] (125)."""
        return functional.relu(self.bn2(self.conv2(x)))

    def blocks(self, x: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Run the blocks `first` to `last`, both included.

        Maps after them: block 1 [N, 128, 74, 74] (63), 2 [N, 256, 37, 37] (32), 3 to 11 [N, 728, 19, 19] (16),
        12 [N, 1024, 10, 10] (8).
        """
        for number in range(first, last + 1):
            x = self.get_submodule(f"block{number}")(x)
        return x

    def last_convolutions(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 1024, 10, 10] (8) -> [N, 2048, 10, 10] (8), before the last ReLU."""
        x = functional.relu(self.bn3(self.conv3(x)))
        y: torch.Tensor = self.bn4(self.conv4(x))
        return y
