"""HFF: two Xceptions, one on the picture and one on its noise, that look at each other on the way.

Luo et al. 2021, "Generalizing Face Forgery Detection with High-frequency Features"; upstream src/model_core.py:63-141
and src/components. Parameter names are the authors'. Numbers in comments are for the only possible input, 256x256.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.srm import FeatureNoise, NoiseAttention, PictureNoise
from deepscan.models.xception import FEATURES, Xception

PLACES: Final = 16 * 16  # of the maps after block 3, fixed by the attention's linear layers
CHANNELS: Final = 728
KEYS: Final = 91
BOTTLENECK: Final = 128


class ClassifyingXception(Xception):
    """The trunk with the authors' two-class head; that of the noise stream is in checkpoints, but not used."""

    def __init__(self) -> None:
        super().__init__()
        self.last_linear = nn.Sequential(nn.Dropout(), nn.Linear(FEATURES, 2))


class Stream(nn.Module):
    """Holds a stream's network under the name that it has in the authors' checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ClassifyingXception()


class CrossAttention(nn.Module):
    """Both streams, each added to by what it finds in the other (src/components/attention.py:168-240)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma1 = nn.Parameter(torch.zeros(1))
        self.gamma2 = nn.Parameter(torch.zeros(1))
        self.key_conv1 = nn.Conv2d(CHANNELS, KEYS, 1)
        self.key_conv2 = nn.Conv2d(CHANNELS, KEYS, 1)
        self.key_conv_share = nn.Conv2d(KEYS, KEYS, 1)
        self.linear1 = nn.Linear(PLACES, PLACES)
        self.linear2 = nn.Linear(PLACES, PLACES)
        self.value_conv1 = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.value_conv2 = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture and noise stream, both [N, 728, 16, 16] -> the same, enriched."""
        x_keys = self.key_conv_share(self.key_conv1(x)).flatten(2)  # [N, 91, 256]
        y_keys = self.key_conv_share(self.key_conv2(y)).flatten(2)
        energy = x_keys.transpose(1, 2) @ y_keys  # [N, places of x, places of y]
        from_y = self.linear1(energy).softmax(-1)
        from_x = self.linear2(energy.transpose(1, 2)).softmax(-1)
        # The values of the noise stream have the number 2, the strength with which they are added the number 1.
        found_in_y = self.value_conv2(y).flatten(2) @ from_y.transpose(1, 2)  # [N, 728, 256]
        found_in_x = self.value_conv1(x).flatten(2) @ from_x.transpose(1, 2)
        shape = (-1, *x.shape[1:])
        return x + self.gamma1 * found_in_y.reshape(shape), y + self.gamma2 * found_in_x.reshape(shape)


class ChannelWeights(nn.Module):
    """The weight of each channel, from its mean and its maximum over the places."""

    def __init__(self) -> None:
        super().__init__()
        self.sharedMLP = nn.Sequential(
            nn.Conv2d(FEATURES, BOTTLENECK, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(BOTTLENECK, FEATURES, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 2048, H, W] -> [N, 2048, 1, 1] in 0..1."""
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self.sharedMLP(mean) + self.sharedMLP(peak))


class Fusion(nn.Module):
    """One map from the last maps of both streams, its channels weighted.

    Args:
        residual: whether the weighted map is added to the unweighted one (the authors), or replaces it
            (DeepfakeBench).
    """

    def __init__(self, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.convblk = nn.Sequential(
            nn.Conv2d(2 * FEATURES, FEATURES, 1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU()
        )
        self.ca = ChannelWeights()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two [N, 2048, 8, 8] -> [N, 2048, 8, 8], not negative."""
        both: torch.Tensor = self.convblk(torch.cat([x, y], dim=1))
        weighted: torch.Tensor = both * self.ca(both)
        return both + weighted if self.residual else weighted


class Hff(nn.Module):
    """The network.

    Args:
        fusion_residual: see `Fusion`.
    """

    def __init__(self, *, fusion_residual: bool) -> None:
        super().__init__()
        self.xception_rgb = Stream()
        self.xception_srm = Stream()
        self.srm_conv0 = PictureNoise()
        self.srm_conv1 = FeatureNoise(32)
        self.srm_conv2 = FeatureNoise(64)
        self.srm_sa = NoiseAttention()
        self.srm_sa_post = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU())
        self.dual_cma0 = CrossAttention()
        self.dual_cma1 = CrossAttention()
        self.fusion = Fusion(residual=fusion_residual)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalized RGB [N, 3, 256, 256] -> logit of *fake* [N].

        The two classes' softmax is the sigmoid of the difference of their logits, which is returned.
        """
        rgb, srm = self.xception_rgb.model, self.xception_srm.model
        noise = self.srm_conv0(pictures)
        # Entry: noise at several depths of the picture stream joins the noise stream.
        x = rgb.first_convolution(pictures)
        y = functional.relu(srm.first_convolution(noise) + self.srm_conv1(x))
        x = rgb.second_convolution(x)
        y = functional.relu(srm.second_convolution(y) + self.srm_conv2(x))
        x = self.srm_sa_post(x * self.srm_sa(noise) + x)
        # Middle: the streams attend to each other twice.
        x, y = self.dual_cma0(rgb.blocks(x, 1, 3), srm.blocks(y, 1, 3))
        x, y = self.dual_cma1(rgb.blocks(x, 4, 7), srm.blocks(y, 4, 7))
        x, y = rgb.blocks(x, 8, 12), srm.blocks(y, 8, 12)
        # Exit. What is fused is not negative, so the ReLU of upstream's classifier would change nothing.
        fused = self.fusion(rgb.last_convolutions(x), srm.last_convolutions(y))
        classes = rgb.last_linear(fused.mean((2, 3)))
        logit: torch.Tensor = classes[:, 1] - classes[:, 0]
        return logit


def build() -> Hff:
    """Return the authors' network, untrained."""
    return Hff(fusion_residual=True)


def build_deepfakebench() -> Hff:
    """Return the network as DeepfakeBench trains it (training/detectors/srm_detector.py), untrained."""
    return Hff(fusion_residual=False)


def deepfakebench_name(key: str) -> str | None:
    """Turn a key of DeepfakeBench's `srm` checkpoints into a parameter's name.

    Returns:
        The name; None for a tensor that takes no part in detection: the channel adapters of its Xceptions, and the
        filter that blurs training pictures. A key in the authors' own naming becomes a name that no parameter has,
        because weights trained with the residual would load but score wrongly without it.
    """
    if key == "blur.weight" or ".adjust_channel." in key:
        return None
    if key.startswith("xception_"):
        return f"authors' {key}"
    for theirs, ours in (("backbone_rgb.", "xception_rgb.model."), ("backbone_srm.", "xception_srm.model.")):
        if key.startswith(theirs):
            name = ours + key.removeprefix(theirs)
            return name.replace(".last_linear.", ".last_linear.1.")
    return key
