"""CADDM: a detector that learns to locate artifacts, so that it does not learn identities.

Dong et al., CVPR 2023, "Implicit Identity Leakage: The Stumbling Block to Improving Deepfake Detection
Generalization", figure 5. Names and layers follow the authors' code (backbones/caddm.py, backbones/adm.py).
The artifact detection module (ADM) narrows the trunk's 7x7 map to one place. In training, heads on each of its maps
(7x7, 5x5, 3x3, 1x1) locate the artifacts by anchors; at test time nothing reads those heads.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks.efficientnet import EfficientNet
from deepscan.models.networks.resnet import ResNet34

CROP_SIDE = 224
# Of each map of the heads: places on a side, and shorter and longer side of its two anchors, in pixels of the crop.
ANCHOR_MAPS = ((7, 40, 80), (5, 80, 120), (3, 120, 160), (1, CROP_SIDE, CROP_SIDE))
ANCHORS_A_PLACE = 2


class NarrowingBlock(nn.Module):
    """A residual block whose first convolution, and the shortcut's, have no padding: a kernel of 3 costs 2 places."""

    def __init__(self, channels: int, *, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        shortcut = nn.Conv2d(channels, channels, kernel, bias=False)
        self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C, H - kernel + 1, W - kernel + 1]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class EndBlock(nn.Module):
    """The last step, from 3x3 places to one, without batch normalization."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.downsample = nn.Conv2d(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, 3, 3] -> [N, C, 1, 1]."""
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + self.downsample(x))


class AnchorHeads(nn.Module):
    """Offsets (4 an anchor) and classes (2 an anchor) on every map; weights of checkpoints only, never run."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ms_dets = nn.ModuleList(_heads(channels, 4 * ANCHORS_A_PLACE))
        self.ms_cls = nn.ModuleList(_heads(channels, 2 * ANCHORS_A_PLACE))


class ArtifactDetection(nn.Module):
    """The ADM; what it finds at four scales ends in one place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.adm_extra_layers = nn.Sequential(
            nn.Sequential(NarrowingBlock(channels, kernel=1)),
            nn.Sequential(NarrowingBlock(channels, kernel=3)),
            nn.Sequential(NarrowingBlock(channels, kernel=3)),
            EndBlock(channels),
        )
        self.multi_scale_detection_module = AnchorHeads(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, 7, 7] -> [N, C]."""
        found: torch.Tensor = self.adm_extra_layers(x)
        return found.squeeze((2, 3))


class Caddm(nn.Module):
    """Trunk and ADM; their sum tells genuine (class 0) from fake (class 1).

    Args:
        trunk: turns [N, 3, 224, 224] into a map [N, C, 7, 7].
        channels: C.
    """

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.base_model = trunk
        self.adm = ArtifactDetection(channels)
        self.fc = nn.Linear(channels, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """BGR [N, 3, 224, 224] in 0..255 -> logit of *fake* [N]; its sigmoid is the softmax's second class."""
        places = self.base_model(x)
        classes: torch.Tensor = self.fc(places.mean((2, 3)) + self.adm(places))
        return classes[:, 1] - classes[:, 0]


def on_resnet34() -> Caddm:
    """Return the untrained network on a ResNet-34."""
    trunk = ResNet34()
    return Caddm(trunk, trunk.channels)


def on_efficientnet(*, width: float, depth: float) -> Caddm:
    """Return the untrained network on an EfficientNet; 199 M (b3) or 270 M (b4) of its parameters are the ADM's."""
    trunk = EfficientNet(width=width, depth=depth)
    return Caddm(trunk, trunk.channels)


def anchor_priors() -> torch.Tensor:
    """Return the anchors that the heads of the ADM refer to; training only.

    Map by map, row by row, two anchors at each place: one upright, one lying. The places of a map are
    `ceil(224 / places on a side)` pixels apart, the first half of that from the corner. The anchors of the last map
    cover the crop; by how much is not known, since upstream clips at the crop's size.

    Returns:
        float32 [168, 4]: center x and y, width and height, in units of the crop's side.
    """
    anchors: list[tuple[float, float, int, int]] = []
    for side, short, long in ANCHOR_MAPS:
        step = math.ceil(CROP_SIDE / side)
        for place in range(side * side):
            x, y = (place % side + 0.5) * step, (place // side + 0.5) * step
            anchors += [(x, y, short, long), (x, y, long, short)]
    return torch.tensor(anchors) / CROP_SIDE


def _heads(channels: int, outputs: int) -> list[nn.Conv2d]:
    """Return one convolution for each map; a map of one place needs no more than 1x1."""
    kernels = [1 if side == 1 else 3 for side, _, _ in ANCHOR_MAPS]
    return [nn.Conv2d(channels, outputs, kernel, padding=kernel // 2) for kernel in kernels]
