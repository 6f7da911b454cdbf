"""CADDM: a detector that learns to locate artifacts, so that it does not learn identities; three backbones.

Dong et al., CVPR 2023, "Implicit Identity Leakage: The Stumbling Block to Improving Deepfake Detection
Generalization".
"""

from __future__ import annotations

from typing import Final

from deepscan.models.detector import Detector, Publication, even_protocol, figures, network, uncalibrated_spec
from deepscan.spec import DetectorSpec, Landmarks, SimilarityCrop

# The authors' places are for landmarks that dlib finds. These are the places of deepscan's five landmarks in the
# authors' own crops, on average over 170 faces (`python -m benchmarks.landmarks`; docs/detectors.md).
TARGET: Final[Landmarks] = (
    (0.3247, 0.4289),
    (0.6803, 0.4331),
    (0.4974, 0.6435),
    (0.3482, 0.8027),
    (0.6531, 0.8095),
)


def _spec(backbone: str, title: str) -> DetectorSpec:
    return uncalibrated_spec(
        f"caddm-{backbone}",
        f"CADDM, {title}, single frame",
        size=224,
        crop=SimilarityCrop(target=TARGET),
        paper=even_protocol(32),  # an author, in the issues 15 and 37 of the repository
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        channel_order="BGR",
    )


def _publication(weights_file: str, *, faceforensics: float, celeb_df: float, dfdc: float) -> Publication:
    """Return the publication of one backbone; the three lie in one download."""
    return Publication(
        title="Implicit Identity Leakage: The Stumbling Block to Improving Deepfake Detection Generalization",
        authors="Shichao Dong et al.",
        venue="CVPR",
        year=2023,
        paper_url="https://arxiv.org/abs/2210.14457",
        code_url="https://github.com/megvii-research/CADDM",
        code_license="Apache-2.0",
        weights_at="https://drive.google.com/file/d/1JNMI4RGssgCOl9t05jkUa6imnw5XR5id/view (linked in the README).",
        weights_files=(weights_file,),
        trained_on="FaceForensics++",
        figures=figures(
            "video AUC",
            "README of the code, Results",
            {"FaceForensics++": faceforensics, "Celeb-DF": celeb_df, "DFDC": dfdc},
        ),
    )


RESNET34: Final = Detector(
    spec=_spec("resnet34", "ResNet-34"),
    build=network("caddm.on_resnet34"),  # 44.0 M parameters
    publication=_publication("resnet34.pkl", faceforensics=99.70, celeb_df=91.15, dfdc=71.49),
)
EFFICIENTNET_B3: Final = Detector(
    spec=_spec("efficientnet-b3", "EfficientNet-b3"),
    build=network("caddm.on_efficientnet", width=1.2, depth=1.4),  # 211 M parameters
    publication=_publication("efficientnet-b3.pkl", faceforensics=99.78, celeb_df=93.08, dfdc=73.34),
)
EFFICIENTNET_B4: Final = Detector(
    spec=_spec("efficientnet-b4", "EfficientNet-b4"),
    build=network("caddm.on_efficientnet", width=1.4, depth=1.8),  # 290 M parameters
    publication=_publication("efficientnet-b4.pkl", faceforensics=99.79, celeb_df=93.88, dfdc=73.85),
)
