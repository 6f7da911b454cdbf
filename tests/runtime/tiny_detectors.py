"""Very small detectors, each exported once: their logit is how bright a face is, from -4 (black) to 4 (white)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import torch
from torch import nn

from deepscan.export.artifact import store_artifact
from deepscan.export.forms import graph_of
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.models.detector import HALF
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import Artifact
from deepscan.spec import DetectorSpec

ORIGIN = WeightsOrigin("tiny.pth", "0" * 64)
FTCN, HFF = find_detector("ftcn").spec, find_detector("hff").spec

TINY_CLIP = msgspec.structs.replace(
    FTCN,
    name="tiny-clip",
    title="Brightness of clips of 8 frames",
    size=32,
    frames=8,
    min_frames=3,
    mean=HALF,
    std=HALF,
    paper=msgspec.structs.replace(FTCN.paper, frames=20, min_frames=2),
)
TINY_FRAME = msgspec.structs.replace(
    HFF,
    name="tiny-frame",
    title="Brightness of single frames",
    size=32,
    paper=msgspec.structs.replace(HFF.paper, frames=6),
)


class Brightness(nn.Module):
    """Four times the mean of its input, which is -1 for black and 1 for white."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] or [N, 3, T, H, W] -> [N]."""
        return 4 * pixels.flatten(1).mean(dim=1)


def tiny_clip_artifact(folder: Path) -> Path:
    """Export a detector that takes clips of 8 crops of 32 x 32 pixels, aligned as those of FTCN; at least 3 frames."""
    return store_artifact(tiny_artifact(TINY_CLIP), folder)


def tiny_frame_artifact(folder: Path) -> Path:
    """Export a detector that takes crops of 32 x 32 pixels."""
    return store_artifact(tiny_artifact(TINY_FRAME), folder)


@cache
def tiny_artifact(spec: DetectorSpec) -> Artifact:
    """Export a detector that takes what the spec says."""
    return packed(graph_of(Brightness(), spec), spec, ORIGIN)
