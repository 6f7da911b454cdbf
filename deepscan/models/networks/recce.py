"""RECCE: an Xception that also reconstructs the face, and attends to where that fails.

Cao et al. 2022, "End-to-End Reconstruction-Classification Learning for Face Forgery Detection"; upstream
model/network/Recce.py:72-133 and model/common.py:83-173. Parameter names are the authors'. Sizes in comments are for a
picture of 299 (of 256).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks.xception import FEATURES, Block, SeparableConv2d, Xception

CHANNELS: Final = 728
EMBEDDING: Final = 256
IMAGENET_CLASSES: Final = 1000


class Encoder(Xception):
    """The trunk with its ImageNet classifier `fc`, which is in checkpoints, but not used."""

    def __init__(self) -> None:
        super().__init__()
        self.act4 = nn.ReLU()
        self.fc = nn.Linear(FEATURES, IMAGENET_CLASSES)

    def last_convolutions(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 1024, 10, 10] (8) -> [N, 2048, 10, 10] (8), after the last ReLU."""
        y: torch.Tensor = self.act4(super().last_convolutions(x))
        return y


def enlarging(inputs: int, outputs: int) -> nn.Sequential:
    """Return a step of the decoder that doubles the map: [N, inputs, H, W] -> [N, outputs, 2H, 2W]."""
    return nn.Sequential(
        nn.UpsamplingNearest2d(scale_factor=2), SeparableConv2d(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def resized(pictures: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Resample bilinearly to the height and width of `like`, corners on corners.

    As two products of matrices: runtimes disagree about a resize to a given size, above all where the batch is free.
    """
    rows = interpolation(pictures.shape[2], like.shape[2], pictures.device)
    columns = interpolation(pictures.shape[3], like.shape[3], pictures.device)
    return rows.to(pictures.dtype) @ pictures @ columns.to(pictures.dtype).T


def interpolation(places: int, samples: int, device: torch.device) -> torch.Tensor:
    """Return weights [samples, places] of linear interpolation; the first sample is the first place, the last the last.

    Args:
        places: how many there are.
        samples: how many there will be; at least two.
        device: of the weights.
    """
    positions = torch.arange(samples, dtype=torch.float64, device=device) * ((places - 1) / (samples - 1))
    distances = (positions[:, None] - torch.arange(places, device=device)).abs()
    return (1 - distances).clamp(min=0)


def embedding(inputs: int) -> nn.Sequential:
    """Return two linear layers on the last axis: [..., inputs] -> [..., 256]."""
    return nn.Sequential(
        nn.Linear(inputs, EMBEDDING, bias=False), nn.ReLU(), nn.Linear(EMBEDDING, EMBEDDING, bias=False)
    )


def patches(x: torch.Tensor, side: int) -> torch.Tensor:
    """Cut a map into squares: [N, C, h * side, w * side] -> [N, h * w, side * side, C], all row by row."""
    channels, height, width = x.shape[1], x.shape[2] // side, x.shape[3] // side
    cut = x.reshape(-1, channels, height, side, width, side).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(-1, height * width, side * side, channels)


def gathered(places: torch.Tensor, beneath: torch.Tensor, pair_weight: torch.Tensor) -> torch.Tensor:
    """Sum the values under each place, weighted by their similarity to the place.

    Args:
        places: [N, 256, h, w].
        beneath: [N, h * w, K, 256].
        pair_weight: [1, 512], of a linear layer on pairs, the place first: applied half by half, so that the pairs
            need not be made.

    Returns:
        [N, 256, h, w].
    """
    for_place, for_beneath = pair_weight[:, :EMBEDDING], pair_weight[:, EMBEDDING:]
    of_place = functional.linear(places.flatten(2).transpose(1, 2), for_place)  # [N, h * w, 1]
    of_beneath = functional.linear(beneath, for_beneath)  # [N, h * w, K, 1]
    match = functional.relu(of_place[:, :, None] + of_beneath).softmax(dim=2)
    total: torch.Tensor = (match * beneath).sum(dim=2)
    return total.transpose(1, 2).reshape(-1, *places.shape[1:])


class GraphReasoning(nn.Module):
    """Lets each place of the encoder's map gather from the places under it in two finer maps of the decoder.

    Each place j of the coarse map, embedded as A_j, is joined with the 2x2 (4x4) places k of the finer map under it,
    embedded as B_jk: a softmax over k of how well they go together weights their sum, which a gate of j scales.
    All places at once, where upstream loops over them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.va_embedding = nn.Sequential(
            nn.Conv2d(CHANNELS, EMBEDDING, 1, bias=False), nn.ReLU(), nn.Conv2d(EMBEDDING, EMBEDDING, 1, bias=False)
        )
        self.va_gated_b = nn.Sequential(nn.Conv2d(CHANNELS, EMBEDDING, 1, bias=False), nn.Sigmoid())
        self.va_gated_c = nn.Sequential(nn.Conv2d(CHANNELS, EMBEDDING, 1, bias=False), nn.Sigmoid())
        self.vb_embedding = embedding(256)
        self.vc_embedding = embedding(128)
        self.reweight_ab = nn.Sequential(nn.Linear(2 * EMBEDDING, 1, bias=False))
        self.reweight_ac = nn.Sequential(nn.Linear(2 * EMBEDDING, 1, bias=False))
        self.reproject = nn.Sequential(
            nn.Conv2d(3 * EMBEDDING, CHANNELS, 1, bias=False), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        )

    def forward(self, coarse: torch.Tensor, middle: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """[N, 728, h, w], [N, 256, 2h, 2w] and [N, 128, 4h, 4w] -> [N, 728, h, w]."""
        places = self.va_embedding(coarse)
        pair_ab, pair_ac = self.reweight_ab.get_parameter("0.weight"), self.reweight_ac.get_parameter("0.weight")
        from_middle = gathered(places, self.vb_embedding(patches(middle, 2)), pair_ab)
        from_fine = gathered(places, self.vc_embedding(patches(fine, 4)), pair_ac)
        from_middle = from_middle * (1 - self.va_gated_b(coarse))
        from_fine = from_fine * (1 - self.va_gated_c(coarse))
        y: torch.Tensor = self.reproject(torch.sigmoid(torch.cat([from_middle, from_fine, places], dim=1)))
        return y


class GuidedAttention(nn.Module):
    """Adds to the map its values where the picture and its reconstruction differ."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(3, 1, 1, bias=False), nn.Sigmoid()
        )
        self.h = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())

    def forward(self, pictures: torch.Tensor, redrawn: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Two [N, 3, S, S] and [N, 728, h, w] -> [N, 728, h, w]."""
        where = self.gated(resized((pictures - redrawn).abs(), x))  # [N, 1, h, w]
        y: torch.Tensor = where * self.h(x) + x
        return y


class Recce(nn.Module):
    """The network; noise and dropout, which only training has, are left out.

    Args:
        classes: 1 (the authors: one logit), or 2 (DeepfakeBench: genuine and *fake*).
    """

    def __init__(self, *, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.fc = nn.Linear(FEATURES, classes)
        self.attention = GuidedAttention()
        self.reasoning = GraphReasoning()
        self.decoder1 = enlarging(CHANNELS, 256)
        self.decoder2 = Block(256, 256, repeats=3)
        self.decoder3 = enlarging(256, 128)
        self.decoder4 = Block(128, 128, repeats=3)
        self.decoder5 = enlarging(128, 64)
        self.decoder6 = nn.Sequential(nn.Conv2d(64, 3, 1, bias=False), nn.Tanh())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalized RGB [N, 3, S, S] -> logit of *fake* [N].

        Of two classes it is the difference of their logits, whose sigmoid is their softmax.
        """
        encoder = self.encoder
        x = encoder.blocks(encoder.second_convolution(encoder.first_convolution(pictures)), 1, 4)
        middle = self.decoder2(self.decoder1(x))  # [N, 256, 38, 38] (32)
        fine = self.decoder4(self.decoder3(middle))  # [N, 128, 76, 76] (64)
        redrawn = resized(self.decoder6(self.decoder5(fine)), pictures)
        x = encoder.blocks(x, 5, 7)
        x = self.reasoning(x, middle, fine) + x
        x = encoder.blocks(x, 8, 8)
        x = self.attention(pictures, redrawn, x)
        x = encoder.last_convolutions(encoder.blocks(x, 9, 12))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
