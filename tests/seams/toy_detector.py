"""A detector as another package brings it: it judges a face by the mean of its colors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepscan.models.detector import Detector, Publication, even_protocol, uncalibrated_spec
from deepscan.spec import SquareCrop

if TYPE_CHECKING:
    from torch import nn


def build() -> nn.Module:
    """Return the untrained network: [N, 3, H, W] -> logit of *fake* [N]."""
    from torch import nn

    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1), nn.Flatten(0))


DETECTOR = Detector(
    spec=uncalibrated_spec(
        "toy",
        "Mean of colors",
        size=64,
        crop=SquareCrop(scale=1.3, shift_down=0.0),
        paper=even_protocol(8),
    ),
    build=build,
    publication=Publication(
        title="A toy", authors="its author", venue="a test", year=2026, weights_at="Nowhere.", trained_on="nothing"
    ),
)
