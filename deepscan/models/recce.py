"""RECCE: an Xception that also reconstructs the face, and attends to where that fails.

Cao et al. 2022, "End-to-End Reconstruction-Classification Learning for Face Forgery Detection" (CVPR).
"""

from __future__ import annotations

from typing import Final

from deepscan.models import deepfakebench
from deepscan.models.detector import Detector, Publication, even_protocol, figures, network, uncalibrated_spec
from deepscan.spec import SquareCrop


def deepfakebench_name(key: str) -> str | None:
    """Turn a key of DeepfakeBench's `recce` checkpoints into a parameter's name.

    Returns:
        The name; None for a tensor of the second Xception, `backbone`, that DeepfakeBench stores but does not use.
    """
    return None if key.startswith("backbone.") else key.removeprefix("model.")


DETECTOR: Final = Detector(
    spec=uncalibrated_spec(
        "recce",
        "RECCE, Xception with reconstruction, single frame",
        size=299,
        crop=SquareCrop(scale=1.3, shift_down=0.0),
        paper=even_protocol(32),
    ),
    build=network("recce.Recce", classes=1),
    publication=Publication(
        title="End-to-End Reconstruction-Classification Learning for Face Forgery Detection",
        authors="Junyi Cao et al.",
        venue="CVPR",
        year=2022,
        paper_url="https://openaccess.thecvf.com/content/CVPR2022/html/"
        "Cao_End-to-End_Reconstruction-Classification_Learning_for_Face_Forgery_Detection_CVPR_2022_paper.html",
        code_url="https://github.com/VISION-SJTU/RECCE",
        code_license="MIT",
        weights_at="An author's link and password in https://github.com/VISION-SJTU/RECCE/issues/2; "
        "it may have lapsed.",
        trained_on="FaceForensics++ c23, anew after the paper",
        figures=(
            *figures(
                "frame AUC",
                "the paper, as table 2 of https://pmc.ncbi.nlm.nih.gov/articles/PMC11042011 repeats it",
                {"FaceForensics++ c23, trained on c23": 99.32, "FaceForensics++ c40, trained on c40": 95.02},
            ),
            *figures(
                "frame AUC",
                "an author in https://github.com/VISION-SJTU/RECCE/issues/9",
                {"Celeb-DF v2, trained on FaceForensics++ c40": 68.71},
            ),
        ),
    ),
)
DEEPFAKEBENCH: Final = Detector(
    spec=uncalibrated_spec(
        "recce-deepfakebench",
        "RECCE as trained by DeepfakeBench, single frame",
        size=256,
        crop=deepfakebench.CROP,
        paper=even_protocol(32),
    ),
    build=network("recce.Recce", classes=2),
    publication=deepfakebench.released(
        "recce_best.pth", 96.21, 81.90, 76.77, 73.19, 79.85, 81.19, 71.33, 74.19, 60.95, 94.46
    ),
    rename=deepfakebench_name,
)
