"""HFF: two Xceptions, one on the picture and one on its noise, that attend to each other.

Luo et al. 2021, "Generalizing Face Forgery Detection with High-frequency Features"; upstream src/model_core.py:63-141
and src/components. Parameter names are the authors'. Numbers in comments are for the only possible input, 256x256.
The noise filters are three of the Spatial Rich Model (SRM), Fridrich & Kodovsky 2012, "Rich Models for Steganalysis of
Digital Images", as chosen by HFF (src/components/srm_conv.py:26-118). They are parameters that no training changes, and
part of checkpoints.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks.xception import FEATURES, Xception

PLACES: Final = 16 * 16  # of the maps after block 3, fixed by the attention's linear layers
CHANNELS: Final = 728
KEYS: Final = 91
BOTTLENECK: Final = 128
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
    """Attention map computed from the noise: the paper's residual guided spatial attention."""

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
