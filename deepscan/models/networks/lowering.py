"""AltFreezing and FTCN with 2-D convolutions only: the same function, in a form that every runtime is fast with.

Frames lie one behind another, [N * T, C, H, W]. A convolution that sees one frame is a 2-D one as it stands. One that
sees three frames is three 1x1 convolutions, whose outputs are moved by a frame and added: what is moved is small then,
because these convolutions have fewer outputs than inputs. The stem sees five frames, stacked as fifteen channels. Batch
normalization is folded into the convolutions, in float64.
"""

from __future__ import annotations

from typing import Final, TypeGuard

import torch
from torch import nn
from torch.nn import functional

from deepscan.models.networks import ftcn
from deepscan.models.networks.ftcn import FTCN
from deepscan.models.networks.i3d import I3D, AltFreezing, Block, MeanHead, Stem

NEIGHBORS: Final = 3


def can_be_lowered(network: nn.Module) -> TypeGuard[AltFreezing | FTCN]:
    """Tell whether this is a network of 3-D convolutions."""
    return isinstance(network, (AltFreezing, FTCN))


def lowered(network: AltFreezing | FTCN, *, frames: int) -> Lowered:
    """Return a network of 2-D convolutions that computes what `network` does, in evaluation mode.

    It takes clips with frames before channels, [N, T, 3, H, W]; `ArtifactGraph` knows that.

    Args:
        network: with its weights; not changed.
        frames: T of the clips.
    """
    return Lowered(network.resnet, frames=frames).eval()


def folded(convolution: nn.Conv3d, normalization: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights [O, I, T, H, W] and biases [O] of a convolution and the normalization behind it, in one."""
    # FTCN's normalization comes with the max-pool behind it.
    batch_norm = normalization[0] if isinstance(normalization, nn.Sequential) else normalization
    assert isinstance(batch_norm, nn.BatchNorm3d)
    assert batch_norm.running_mean is not None
    assert batch_norm.running_var is not None
    scale = batch_norm.weight.double() / (batch_norm.running_var.double() + batch_norm.eps).sqrt()
    weight = convolution.weight.double() * scale.view(-1, 1, 1, 1, 1)
    bias = batch_norm.bias.double() - batch_norm.running_mean.double() * scale
    return weight.float().detach(), bias.float().detach()


def convolution_2d(weight: torch.Tensor, bias: torch.Tensor | None, *, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Return a convolution with these weights [O, I, H, W]."""
    outputs, inputs, kernel, _ = weight.shape
    made = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias is not None)
    made.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


def spatial(convolution: nn.Conv3d, normalization: nn.Module) -> nn.Module:
    """Lower a convolution that sees one frame, and the max-pool that may follow its normalization."""
    weight, bias = folded(convolution, normalization)
    stride, padding = _last(convolution.stride), _last(convolution.padding)
    made = convolution_2d(weight[:, :, 0], bias, stride=stride, padding=padding)
    if not isinstance(normalization, nn.Sequential):
        return made
    pool = normalization[1]
    assert isinstance(pool, nn.MaxPool3d)
    return nn.Sequential(made, nn.MaxPool2d(_last(pool.kernel_size)))


def _last(sizes: object) -> int:
    """Return what torch keeps for the last axis, along the width."""
    assert isinstance(sizes, tuple)
    return int(sizes[-1])


def moved(clips: torch.Tensor, *, by: int) -> torch.Tensor:
    """Shift [N, T, C, H, W] by a number of frames towards the end; zeros come in, and the last frames are dropped."""
    return functional.pad(clips, (0, 0, 0, 0, 0, 0, by, -by))


class Temporal(nn.Module):
    """A 3x1x1 convolution over frames that lie one behind another."""

    def __init__(self, convolution: nn.Conv3d, normalization: nn.Module, *, frames: int) -> None:
        super().__init__()
        weight, bias = folded(convolution, normalization)
        self.frames = frames
        self.before = convolution_2d(weight[:, :, 0], None)
        self.here = convolution_2d(weight[:, :, 1], bias)
        self.after = convolution_2d(weight[:, :, 2], None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N * T, I, H, W] -> [N * T, O, H, W]; beyond the ends of a clip there are zeros."""
        clips = (-1, self.frames, *self.here.weight.shape[:1], *x.shape[2:])
        before, after = moved(self.before(x).view(clips), by=1), moved(self.after(x).view(clips), by=-1)
        total: torch.Tensor = self.here(x).view(clips) + before + after
        return total.view(-1, *clips[2:])


class LoweredStem(nn.Module):
    """The stem's convolution over five frames, as one over their fifteen channels; then its pools."""

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        weight, bias = folded(stem.conv, stem.bn)
        self.reach = weight.shape[2]
        stacked = weight.transpose(1, 2).flatten(1, 2)  # [O, 5 * 3, H, W]
        stride, padding = _last(stem.conv.stride), _last(stem.conv.padding)
        self.conv = convolution_2d(stacked, bias, stride=stride, padding=padding)
        self.pool = nn.MaxPool2d(2) if isinstance(stem.bn, nn.Sequential) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, 3, H, W] -> [N * T, 64, H / 4, W / 4]."""
        side = self.reach // 2
        steps = [moved(x, by=step) if step else x for step in range(side, -side - 1, -1)]
        y = self.pool(self.conv(torch.cat(steps, dim=2).flatten(0, 1)))
        return functional.relu(functional.max_pool2d(y, 3, 2, 1))


class LoweredBlock(nn.Module):
    """A residual block."""

    def __init__(self, block: Block, *, frames: int) -> None:
        super().__init__()
        branch = block.branch2
        along_time = branch.a.kernel_size[0] == NEIGHBORS
        self.a = Temporal(branch.a, branch.a_bn, frames=frames) if along_time else spatial(branch.a, branch.a_bn)
        self.b = spatial(branch.b, branch.b_bn)
        self.c = spatial(branch.c, branch.c_bn)
        self.shortcut = spatial(block.branch1, block.branch1_bn) if block.projects else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N * T, inputs, H, W] -> [N * T, outputs, H / stride, W / stride]."""
        y = self.c(functional.relu(self.b(functional.relu(self.a(x)))))
        return functional.relu(y + self.shortcut(x))


class Lowered(nn.Module):
    """The whole network."""

    def __init__(self, trunk: I3D, *, frames: int) -> None:
        super().__init__()
        parts = dict(trunk.named_children())
        head = parts.pop("head")
        assert isinstance(head, (MeanHead, ftcn.Head))
        self.head = head
        stem = parts.pop("s1")[0]  # type: ignore[index]
        self.stem = LoweredStem(stem)
        pool = parts.pop("pathway0_pool")
        assert isinstance(pool, nn.MaxPool3d)
        self.pooled = int(pool.kernel_size[0])  # type: ignore[index]
        self.frames = frames // self.pooled
        first, *others = parts.values()
        self.first = nn.Sequential(*(LoweredBlock(block, frames=frames) for block in first))  # type: ignore[attr-defined]
        self.others = nn.Sequential(
            *(LoweredBlock(block, frames=self.frames) for stage in others for block in stage)  # type: ignore[attr-defined]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized RGB clips [N, T, 3, 224, 224], frames before channels, -> logit of *fake* [N]."""
        y = self.first(self.stem(x))
        if self.pooled > 1:
            y = y.view(-1, self.pooled, *y.shape[1:]).amax(1)
        return self.read(self.others(y))

    def read(self, y: torch.Tensor) -> torch.Tensor:
        """[N * T, C, H, W] -> logit [N]: what the head does, without moving channels before frames."""
        logit: torch.Tensor
        if isinstance(self.head, ftcn.Head):
            logit = self.head.time_T(y.mean((2, 3)).view(-1, self.frames, y.shape[1]))
        else:
            logit = self.head.projection(y.view(-1, self.frames, *y.shape[1:]).mean((1, 3, 4)))[:, 0]
        return logit
