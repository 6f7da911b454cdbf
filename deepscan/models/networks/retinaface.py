"""RetinaFace with MobileNet-0.25, the face detector of FTCN and AltFreezing.

Deng et al. 2020, "RetinaFace: Single-stage Dense Face Localization in the Wild", without its mesh branch; the network
and the names of its parameters are those of biubug6's Pytorch_Retinaface, as AltFreezing: test_tools/ct/detection/
alignment.py uses them. Map sizes are those of strides 8, 16 and 32, rounded up.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

SLOPE: Final = 0.1  # of every leaky ReLU
FEATURES: Final = 64  # channels of the pyramid and of what the heads see
ANCHORS: Final = 2  # at each place of each map
# The network was trained on BGR with these means. FTCN and AltFreezing subtract them, in this order, from RGB
# (AltFreezing: test_tools/ct/detection/alignment.py:552-558). To find the same faces, so does this.
MEAN_OF_RGB: Final = (104.0, 117.0, 123.0)


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps the size (but for its stride), and its batch normalization."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


def activated(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """Return a convolution with a leaky ReLU: [N, inputs, H, W] -> [N, outputs, ceil(H / stride), ceil(W / stride)]."""
    return nn.Sequential(*convolution(inputs, outputs, kernel, stride=stride), nn.LeakyReLU(SLOPE))


def separable(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Return a depthwise 3x3 and a pointwise convolution, each with a leaky ReLU."""
    return nn.Sequential(
        *convolution(inputs, inputs, 3, stride=stride, groups=inputs),
        nn.LeakyReLU(SLOPE),
        *convolution(inputs, outputs, 1),
        nn.LeakyReLU(SLOPE),
    )


class MobileNet(nn.Module):
    """MobileNet (version 1) with a quarter of its channels, without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            activated(3, 8, 3, stride=2),
            separable(8, 16),
            separable(16, 32, stride=2),
            separable(32, 32),
            separable(32, 64, stride=2),
            separable(64, 64),
        )
        self.stage2 = nn.Sequential(separable(64, 128, stride=2), *(separable(128, 128) for _ in range(5)))
        self.stage3 = nn.Sequential(separable(128, 256, stride=2), separable(256, 256))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[N, 3, H, W] -> maps of 64, 128 and 256 channels, 8, 16 and 32 times smaller."""
        fine = self.stage1(x)
        middle = self.stage2(fine)
        return fine, middle, self.stage3(middle)


class Pyramid(nn.Module):
    """A feature pyramid: each map gets the coarser one, enlarged to its size."""

    def __init__(self) -> None:
        super().__init__()
        self.output1 = activated(64, FEATURES, 1)
        self.output2 = activated(128, FEATURES, 1)
        self.output3 = activated(256, FEATURES, 1)
        self.merge1 = activated(FEATURES, FEATURES, 3)
        self.merge2 = activated(FEATURES, FEATURES, 3)

    def forward(self, fine: torch.Tensor, middle: torch.Tensor, coarse: torch.Tensor) -> list[torch.Tensor]:
        """Three maps of any channels -> three of 64, of the same sizes."""
        third = self.output3(coarse)
        second = self.output2(middle)
        second = self.merge2(second + enlarged(third, like=second))
        first = self.output1(fine)
        first = self.merge1(first + enlarged(second, like=first))
        return [first, second, third]


def enlarged(x: torch.Tensor, *, like: torch.Tensor) -> torch.Tensor:
    """Repeat the nearest value to the exact size of `like`, which may be odd."""
    return functional.interpolate(x, size=like.shape[2:], mode="nearest")


class ContextModule(nn.Module):
    """Looks at surroundings of 3x3, 5x5 and 7x7, the larger ones as chains of 3x3 (the paper's context module, SSH)."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = FEATURES // 2, FEATURES // 4
        self.conv3X3 = nn.Sequential(*convolution(FEATURES, half, 3))
        self.conv5X5_1 = activated(FEATURES, quarter, 3)
        self.conv5X5_2 = nn.Sequential(*convolution(quarter, quarter, 3))
        self.conv7X7_2 = activated(quarter, quarter, 3)
        self.conv7x7_3 = nn.Sequential(*convolution(quarter, quarter, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 64, H, W] -> [N, 64, H, W]."""
        shared = self.conv5X5_1(x)
        seen = [self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))]
        return functional.relu(torch.cat(seen, dim=1))


class Head(nn.Module):
    """Predicts so many values for each anchor."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(FEATURES, ANCHORS * values, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 64, H, W] -> [N, H * W * 2, values], row by row."""
        y: torch.Tensor = self.conv1x1(x)
        return y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, self.values)


def heads(values: int) -> nn.ModuleList:
    """Return a head for each map."""
    return nn.ModuleList(Head(values) for _ in range(3))


class RetinaFace(nn.Module):
    """The network, from a picture to what it predicts for each anchor; nothing is decoded here."""

    def __init__(self) -> None:
        super().__init__()
        self.body = MobileNet()
        self.fpn = Pyramid()
        self.ssh1 = ContextModule()
        self.ssh2 = ContextModule()
        self.ssh3 = ContextModule()
        self.ClassHead = heads(2)
        self.BboxHead = heads(4)
        self.LandmarkHead = heads(10)
        self.register_buffer("mean", torch.tensor(MEAN_OF_RGB).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look at pictures.

        Args:
            pictures: uint8 BGR [N, H, W, 3], of any size.

        Returns:
            Boxes [N, A, 4] and points [N, A, 10], relative to the anchors, and scores [N, A] in [0, 1]. Of the A
            anchors, those of the finest map come first; within a map they run row by row, at each place the smaller
            anchor first.
        """
        rgb = pictures.permute(0, 3, 1, 2).to(torch.float32).flip(1)
        maps = self.fpn(*self.body(rgb - self.get_buffer("mean")))
        seen = [look(x) for look, x in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        boxes, classes, points = (
            torch.cat([head(x) for head, x in zip(of_maps, seen, strict=True)], dim=1)
            for of_maps in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return boxes, classes.softmax(dim=2)[..., 1], points
