"""CADDM: a detector that learns to locate artifacts, so that it does not learn identities; three backbones.

Dong et al., CVPR 2023, "Implicit Identity Leakage: The Stumbling Block to Improving Deepfake Detection
Generalization".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deepscan.models.detector import Detector, Publication, even_protocol, figures, frame_spec
from deepscan.spec import DetectorSpec, Landmarks, SimilarityCrop

if TYPE_CHECKING:
    from deepscan.models.networks.caddm import Caddm


def authors_target() -> Landmarks:
    """Return where CADDM places the five landmarks (lib/data_preprocess/cropface.py), in units of the side.

    The mean face is given relative to the face's width; the rule stretches it so that the face is 80 of 224 pixels
    wide between two marks 0.34967 apart, and moves it down so that the eyes lie at 1/2.42 of the height.
    """
    mean_face = (
        (-0.17607, -0.172844),
        (0.1736, -0.17356),
        (-0.00182, 0.0357164),
        (-0.14617, 0.20185),
        (0.14496, 0.19943),
    )
    ratio = 0.9 * 80 / (224 * 0.34967)
    down = (mean_face[0][1] * ratio + 0.5) * 2.42
    return tuple((x * ratio + 0.5, (y * ratio + 0.5) / down) for x, y in mean_face)


# The authors' places are for landmarks that dlib finds. These are the places of deepscan's five landmarks in the
# authors' own crops, on average over 170 faces (`python -m benchmarks.landmarks`; docs/detectors.md).
TARGET: Final[Landmarks] = (
    (0.3247, 0.4289),
    (0.6803, 0.4331),
    (0.4974, 0.6435),
    (0.3482, 0.8027),
    (0.6531, 0.8095),
)


def build_resnet34() -> Caddm:
    """Return the untrained network on a ResNet-34; 44.0 M parameters."""
    from deepscan.models.networks.caddm import on_resnet34

    return on_resnet34()


def build_efficientnet_b3() -> Caddm:
    """Return the untrained network on an EfficientNet-b3; 211 M parameters."""
    from deepscan.models.networks.caddm import on_efficientnet

    return on_efficientnet(width=1.2, depth=1.4)


def build_efficientnet_b4() -> Caddm:
    """Return the untrained network on an EfficientNet-b4; 290 M parameters."""
    from deepscan.models.networks.caddm import on_efficientnet

    return on_efficientnet(width=1.4, depth=1.8)


def _spec(backbone: str, title: str) -> DetectorSpec:
    return frame_spec(
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
    build=build_resnet34,
    publication=_publication("resnet34.pkl", faceforensics=99.70, celeb_df=91.15, dfdc=71.49),
)
EFFICIENTNET_B3: Final = Detector(
    spec=_spec("efficientnet-b3", "EfficientNet-b3"),
    build=build_efficientnet_b3,
    publication=_publication("efficientnet-b3.pkl", faceforensics=99.78, celeb_df=93.08, dfdc=73.34),
)
EFFICIENTNET_B4: Final = Detector(
    spec=_spec("efficientnet-b4", "EfficientNet-b4"),
    build=build_efficientnet_b4,
    publication=_publication("efficientnet-b4.pkl", faceforensics=99.79, celeb_df=93.88, dfdc=73.85),
)
