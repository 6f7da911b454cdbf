"""FTCN: an I3D ResNet-50 with temporal kernels only, and a temporal transformer on top.

Zheng et al. 2021, "Exploring temporal coherence for more general video face forgery detection" (ICCV). The network:
`model/classifier/i3d_temporal_var_fix_dropout_tt_cfg.py` with `setting/ftcn_tt.yaml`. Places are mixed by
max-pools and the final mean alone, so the network cannot answer from what a single frame looks like.

The transformer: section 3.3; `model/classifier/time_transformer.py:219-235` and the head's defaults in
`i3d_temporal_var_fix_dropout_tt_cfg.py:160-166`. Dropout does nothing in use, so it is an identity here; it stays in
the lists because the names of the weights count places.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks.i3d import EXPANSION, I3D, STAGES

STEPS = 16  # of time, at the transformer
LAST_STAGE = 3  # the authors' `stop_point`: the trunk's fourth stage is left out
HEADS = 16
HEAD_CHANNELS = 64
HIDDEN = 2048


class Attention(nn.Module):
    """Self-attention of 16 heads with 64 channels each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(channels, 3 * HEADS * HEAD_CHANNELS, bias=False)
        self.to_out = nn.Sequential(nn.Linear(HEADS * HEAD_CHANNELS, channels), nn.Identity())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, tokens, channels] -> the same shape."""
        query, key, value = (
            part.unflatten(2, (HEADS, HEAD_CHANNELS)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=2)
        )
        weights = (query @ key.transpose(2, 3) * HEAD_CHANNELS**-0.5).softmax(dim=3)
        attended: torch.Tensor = self.to_out((weights @ value).transpose(1, 2).flatten(2))
        return attended


class Residual(nn.Module):
    """A layer that sees its input normalized, and whose output is added to it."""

    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.fn = nn.Sequential(OrderedDict(norm=nn.LayerNorm(channels), fn=layer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, tokens, channels] -> the same shape."""
        changed: torch.Tensor = x + self.fn(x)
        return changed


def transformer(channels: int) -> nn.Module:
    """Return one block, [N, tokens, channels] -> the same: attention, then the same two layers for every token."""
    attention = Residual(channels, Attention(channels))
    two = nn.Sequential(
        nn.Linear(channels, HIDDEN), nn.GELU(), nn.Identity(), nn.Linear(HIDDEN, channels), nn.Identity()
    )
    feed_forward = Residual(channels, nn.Sequential(OrderedDict(net=two)))
    return nn.Sequential(OrderedDict(layers=nn.Sequential(nn.Sequential(attention, feed_forward))))


class TimeTransformer(nn.Module):
    """Class token and positions, the block, and one linear output from the class token.

    Args:
        steps: of time.
        channels: of each step.
    """

    def __init__(self, *, steps: int, channels: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, steps + 1, channels))
        self.cls_token = nn.Parameter(torch.randn(1, 1, channels))
        self.transformer = transformer(channels)
        self.mlp_head = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, steps, channels] -> logit [N]."""
        # The class token is added to a step of zeros: repeating it would need the batch's size inside exported graphs.
        first, others = self.pos_embedding[:, :1], self.pos_embedding[:, 1:]
        tokens = functional.pad(x, (0, 0, 1, 0)) + torch.cat([self.cls_token + first, others], dim=1)
        logit: torch.Tensor = self.mlp_head(self.transformer(tokens)[:, 0])[:, 0]
        return logit


class Head(nn.Module):
    """The mean over space, then the transformer over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.time_T = TimeTransformer(steps=STEPS, channels=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels, 16, H, W] -> logit [N]."""
        logit: torch.Tensor = self.time_T(x.mean((3, 4)).transpose(1, 2))
        return logit


class FTCN(nn.Module):
    """The network; what the authors call `resnet` is all of it. Their sigmoid at its end is left out.

    Args:
        frame_pool: of how many neighboring frames the trunk takes the maximum: T / 16.
    """

    def __init__(self, *, frame_pool: int) -> None:
        super().__init__()
        stages = STAGES[:LAST_STAGE]
        self.resnet = I3D(Head(stages[-1].inner * EXPANSION), stages=stages, frame_pool=frame_pool, temporal_only=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized RGB clips [N, 3, T, 224, 224] -> logit of *fake* [N]."""
        logit: torch.Tensor = self.resnet(x)
        return logit
