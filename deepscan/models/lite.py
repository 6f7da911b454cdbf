"""`lite`, the embedded frame detector: EfficientNet-Lite2 trained on DFDC crops and self-blended faces.

Training recipe, measured figures and their limits: `deepscan/assets/lite.md`.
"""

from __future__ import annotations

from typing import Final

from deepscan.models.detector import Detector, Publication, figures, network
from deepscan.spec import Calibration, DetectorSpec, LabelBand, PaperProtocol, SquareCrop

LITE: Final = DetectorSpec(
    name="lite",
    title="EfficientNet-Lite2, single frame, embedded: face swaps; weak on re-enactment",
    kind="frame",
    size=224,
    frames=1,
    min_frames=1,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
    channel_order="RGB",
    crop=SquareCrop(scale=0.9, shift_down=0.03),
    min_face_pixels=100,
    mirror=True,
    pooling="logit",
    calibration=Calibration(scale=0.968, offset=-0.837),
    band=LabelBand(real_below=0.50, fake_from=0.85),
    paper=PaperProtocol(
        choice="middles", frames=16, tracks="overlap", stride=1, min_frames=1, min_face_pixels=100, aggregate="max"
    ),
)
CARD: Final = "model card deepscan/assets/lite.md"


DETECTOR: Final = Detector(
    spec=LITE,
    build=network("efficientnet.EfficientNetLite", width=1.1, depth=1.2),  # Lite2
    publication=Publication(
        title="Model card: lite",
        authors="the deepscan developers",
        venue="part of this package",
        year=2026,
        code_license="MIT",
        weights_license="MIT, as the package; the training data has terms of its own, see the model card",
        weights_at="Inside the package: there is nothing to download.",
        weights_files=("lite.onnx",),
        trained_on="DFDC, self-blended images, portraits of members of the US Congress",
        figures=(
            *figures(
                "crop AUC",
                CARD,
                {"DFDC crops, identities not in training": 94.1},
                {"DFDC crops, identities not in training": (93.5, 94.7)},
            ),
            *figures(
                "video AUC",
                CARD,
                {
                    "FaceForensics++ c40": 71.0,
                    "FaceForensics++ c40, Deepfakes": 91.0,
                    "FaceForensics++ c40, FaceSwap": 90.0,
                    "FaceForensics++ c40, Face2Face": 60.0,
                    "FaceForensics++ c40, NeuralTextures": 43.0,
                    "footage from the wild": 63.0,
                },
                {
                    "FaceForensics++ c40": (59.0, 88.0),
                    "FaceForensics++ c40, Deepfakes": (70.0, 100.0),
                    "FaceForensics++ c40, FaceSwap": (76.0, 100.0),
                    "FaceForensics++ c40, Face2Face": (34.0, 100.0),
                    "FaceForensics++ c40, NeuralTextures": (11.0, 75.0),
                    "footage from the wild": (46.0, 85.0),
                },
            ),
        ),
    ),
)
