"""`lite`, the embedded frame detector: EfficientNet-Lite2 trained on DFDC crops and self-blended faces.

Training recipe, measured figures and their limits: `deepscan/assets/lite.md`.
"""

from __future__ import annotations

from deepscan.models.efficientnet_lite import EfficientNetLite
from deepscan.spec import Calibration, CropPolicy, DetectorSpec, LabelBand

SPEC = DetectorSpec(
    name="lite",
    title="EfficientNet-Lite2, single frame, embedded: face swaps; weak on re-enactment",
    kind="frame",
    size=224,
    frames=1,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
    channel_order="RGB",
    crop=CropPolicy(scale=0.9, shift_down=0.03, min_face_pixels=100),
    mirror=True,
    pooling="logit",
    calibration=Calibration(scale=0.968, offset=-0.837),
    band=LabelBand(real_below=0.50, fake_from=0.85),
    paper_frames=16,
)


def build() -> EfficientNetLite:
    """Return the untrained network, width 1.1 and depth 1.2 (Lite2)."""
    return EfficientNetLite(width=1.1, depth=1.2)
