"""How the network of each detector is built; importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import nn

from deepscan.models import altfreezing, caddm, ftcn, hff, lite, recce, retinaface

# Each builds the untrained network, which maps normalized pictures [N, 3, H, W], or clips [N, 3, T, H, W], to the
# logit of *fake* [N]. Its parameters have the names of the authors' checkpoints.
BUILDERS: Final[dict[str, Callable[[], nn.Module]]] = {
    "lite": lite.build,
    "altfreezing": altfreezing.build,
    "ftcn": ftcn.build,
    "hff": hff.build,
    "caddm-resnet34": caddm.build_resnet34,
    "caddm-efficientnet-b3": caddm.build_efficientnet_b3,
    "caddm-efficientnet-b4": caddm.build_efficientnet_b4,
    "recce": recce.build,
    "altfreezing-deepfakebench": altfreezing.build_deepfakebench,
    "ftcn-deepfakebench": ftcn.build_deepfakebench,
    "hff-deepfakebench": hff.build_deepfakebench,
    "recce-deepfakebench": recce.build_deepfakebench,
}

# Face detectors that can be used instead of the built-in one, likewise.
FACE_DETECTORS: Final[dict[str, Callable[[], nn.Module]]] = {"retinaface": retinaface.build}
