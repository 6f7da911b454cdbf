"""FTCN: an I3D ResNet-50 that looks along time only, with a temporal transformer on top.

Zheng et al. 2021, "Exploring temporal coherence for more general video face forgery detection" (ICCV). The network:
`model/classifier/i3d_temporal_var_fix_dropout_tt_cfg.py` with `setting/ftcn_tt.yaml`. Places are mixed by
max-pools and the final mean alone, so the network cannot answer from what a single frame looks like.
"""

from __future__ import annotations

import torch
from torch import nn

from deepscan.models.i3d import EXPANSION, I3D, STAGES
from deepscan.models.temporal_transformer import TimeTransformer

STEPS = 16  # of time, at the transformer
LAST_STAGE = 3  # the authors' `stop_point`: the trunk's fourth stage is left out


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


def build() -> FTCN:
    """Return the untrained network, for clips of 32 frames."""
    return FTCN(frame_pool=2)


def build_deepfakebench() -> FTCN:
    """Return the untrained network as DeepfakeBench has it, for clips of 16 frames: no frames are pooled.

    The names and shapes of the weights are the same as the authors', so a checkpoint does not tell which it is for
    (`training/detectors/ftcn_detector.py`, `no_time_pool`).
    """
    return FTCN(frame_pool=1)
