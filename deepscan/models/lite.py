"""`lite`, the embedded frame detector: EfficientNet-Lite2 trained on DFDC crops and self-blended faces.

Training recipe, measured figures and their limits: `deepscan/assets/lite.md`.
"""

from __future__ import annotations

from deepscan.models.efficientnet_lite import EfficientNetLite


def build() -> EfficientNetLite:
    """Return the untrained network, width 1.1 and depth 1.2 (Lite2)."""
    return EfficientNetLite(width=1.1, depth=1.2)
