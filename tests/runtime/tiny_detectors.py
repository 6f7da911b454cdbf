"""Very small detectors, exported on the spot: their logit is how bright a face is, from -4 (black) to 4 (white)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import nn

from deepscan.export.artefact import WeightsOrigin, write_artefact
from deepscan.models.specs import HALF, SPECS
from deepscan.spec import DetectorSpec

ORIGIN = WeightsOrigin("tiny.pth", "0" * 64)
FTCN, HFF = SPECS["ftcn"], SPECS["hff"]

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


def tiny_clip_artefact(folder: Path) -> Path:
    """Export a detector that takes clips of 8 crops of 32 x 32 pixels, aligned as those of FTCN; at least 3 frames."""
    return _exported(TINY_CLIP, folder)


def tiny_frame_artefact(folder: Path) -> Path:
    """Export a detector that takes crops of 32 x 32 pixels."""
    return _exported(TINY_FRAME, folder)


def _exported(spec: DetectorSpec, folder: Path) -> Path:
    return folder / write_artefact(Brightness(), spec, ORIGIN, folder).file
