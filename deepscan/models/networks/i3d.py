"""I3D ResNet-50, a ResNet over clips whose kernels extend over time or space: AltFreezing, and the trunk of FTCN.

Architecture: SlowFast's `i3d` of depth 50 without non-local blocks (AltFreezing `slowfast/models/
video_model_builder.py:391-580`, `resnet_helper.py:196-445`); the idea is Carreira & Zisserman 2017, "Quo vadis, action
recognition?". FTCN (Zheng et al. 2021, section 3.2) removes all spatial kernels: see `layer`.
AltFreezing (Wang et al. 2023) is a plain I3D with one output (`model/classifier/i3d_ori.py`, `setting/i3d_ori.yaml`;
the head: `slowfast/models/head_helper.py:74-95`). The layers have the authors' names, which their checkpoints use.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

STEM_CHANNELS = 64
EXPANSION = 4  # of a block's output over its inner channels


@dataclass(frozen=True)
class Stage:
    """Blocks at one resolution; the first of them halves height and width, unless `stride` is 1.

    Attributes:
        inner: channels inside the blocks.
        times: for each block, the temporal kernel of its first convolution.
        stride: of the first block, over height and width.
    """

    inner: int
    times: tuple[int, ...]
    stride: int = 2


STAGES = (
    Stage(inner=64, times=(3, 3, 3), stride=1),
    Stage(inner=128, times=(3, 1, 3, 1)),
    Stage(inner=256, times=(3, 1, 3, 1, 3, 1)),
    Stage(inner=512, times=(1, 3, 1)),
)


def layer(
    inputs: int, outputs: int, *, time: int = 1, space: int = 1, stride: int = 1, temporal_only: bool
) -> tuple[nn.Conv3d, nn.Module]:
    """Return a convolution without bias, and the batch normalization behind it.

    Args:
        inputs: channels.
        outputs: channels.
        time: kernel along time; the length stays.
        space: kernel along height and width.
        stride: along height and width.
        temporal_only: FTCN's form (`i3d_temporal_var_fix_dropout_tt_cfg.py:192-273`). The kernel sees one place only,
            and in place of a stride the maximum of 2x2 places is taken, of what the normalization gives.
    """
    if temporal_only:
        convolution = nn.Conv3d(inputs, outputs, (time, 1, 1), padding=(time // 2, 0, 0), bias=False)
        if stride == 1:
            return convolution, nn.BatchNorm3d(outputs)
        return convolution, nn.Sequential(nn.BatchNorm3d(outputs), nn.MaxPool3d((1, stride, stride)))
    convolution = nn.Conv3d(
        inputs,
        outputs,
        (time, space, space),
        stride=(1, stride, stride),
        padding=(time // 2, space // 2, space // 2),
        bias=False,
    )
    return convolution, nn.BatchNorm3d(outputs)


class Stem(nn.Module):
    """A large convolution and a max-pool: a quarter of the height and width."""

    def __init__(self, *, temporal_only: bool) -> None:
        super().__init__()
        self.conv, self.bn = layer(3, STEM_CHANNELS, time=5, space=7, stride=2, temporal_only=temporal_only)
        self.pool_layer = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, T, H, W] -> [N, 64, T, H / 4, W / 4]."""
        # The authors pool after the ReLU; the result is the same, with a quarter of the work here.
        pooled: torch.Tensor = self.pool_layer(self.bn(self.conv(x)))
        return functional.relu(pooled, inplace=True)


class Bottleneck(nn.Module):
    """The residual branch: along time and to fewer channels (a), along space (b), to four times the channels (c)."""

    def __init__(self, inputs: int, inner: int, *, time: int, stride: int, temporal_only: bool) -> None:
        super().__init__()
        self.a, self.a_bn = layer(inputs, inner, time=time, temporal_only=temporal_only)
        self.b, self.b_bn = layer(inner, inner, space=3, stride=stride, temporal_only=temporal_only)
        self.c, self.c_bn = layer(inner, inner * EXPANSION, temporal_only=temporal_only)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, T, H, W] -> [N, 4 * inner, T, H / stride, W / stride]."""
        x = functional.relu(self.a_bn(self.a(x)), inplace=True)
        x = functional.relu(self.b_bn(self.b(x)), inplace=True)
        changed: torch.Tensor = self.c_bn(self.c(x))
        return changed


class Block(nn.Module):
    """The residual branch and its input, added; the input is projected where a stage begins."""

    def __init__(self, inputs: int, inner: int, *, time: int, stride: int, temporal_only: bool) -> None:
        super().__init__()
        outputs = inner * EXPANSION
        self.projects = inputs != outputs
        if self.projects:
            self.branch1, self.branch1_bn = layer(inputs, outputs, stride=stride, temporal_only=temporal_only)
        self.branch2 = Bottleneck(inputs, inner, time=time, stride=stride, temporal_only=temporal_only)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, T, H, W] -> [N, 4 * inner, T, H / stride, W / stride]."""
        shortcut = self.branch1_bn(self.branch1(x)) if self.projects else x
        total: torch.Tensor = self.branch2(x)
        total += shortcut
        return functional.relu(total, inplace=True)


def blocks(inputs: int, stage: Stage, *, temporal_only: bool) -> nn.Sequential:
    """Return the blocks of one stage, which takes `inputs` channels."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for number, time in enumerate(stage.times):
        named[f"pathway0_res{number}"] = Block(
            inputs if number == 0 else stage.inner * EXPANSION,
            stage.inner,
            time=time,
            stride=stage.stride if number == 0 else 1,
            temporal_only=temporal_only,
        )
    return nn.Sequential(named)


class I3D(nn.Sequential):
    """The trunk with a head: normalized clips [N, 3, T, 224, 224] -> the output of the head.

    Args:
        head: takes [N, 4 * stages[-1].inner, T / frame_pool, H, W].
        stages: those that the network has.
        frame_pool: number of neighboring frames of which the maximum is taken after the first stage.
        temporal_only: FTCN's form of the convolutions.
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        stages: tuple[Stage, ...] = STAGES,
        frame_pool: int = 2,
        temporal_only: bool = False,
    ) -> None:
        named: OrderedDict[str, nn.Module] = OrderedDict()
        named["s1"] = nn.Sequential(OrderedDict(pathway0_stem=Stem(temporal_only=temporal_only)))
        inputs = STEM_CHANNELS
        for number, stage in enumerate(stages, start=2):
            named[f"s{number}"] = blocks(inputs, stage, temporal_only=temporal_only)
            inputs = stage.inner * EXPANSION
            if number == 2:
                named["pathway0_pool"] = nn.MaxPool3d((frame_pool, 1, 1))
        named["head"] = head
        super().__init__(named)


class MeanHead(nn.Module):
    """The mean over time and space, then one linear output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels, T, H, W] -> logit [N]."""
        logit: torch.Tensor = self.projection(x.mean((2, 3, 4)))[:, 0]
        return logit


class AltFreezing(nn.Module):
    """The network; what the authors call `resnet` is all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = I3D(MeanHead(STAGES[-1].inner * EXPANSION))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized RGB clips [N, 3, T, 224, 224] -> logit of *fake* [N]."""
        logit: torch.Tensor = self.resnet(x)
        return logit
