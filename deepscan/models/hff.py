"""HFF: two Xceptions, one on the picture and one on its noise, that attend to each other.

Luo et al. 2021, "Generalizing Face Forgery Detection with High-frequency Features" (CVPR).
"""

from __future__ import annotations

from typing import Final

from deepscan.models import deepfakebench
from deepscan.models.detector import Detector, Publication, even_protocol, figures, network, uncalibrated_spec
from deepscan.spec import SquareCrop


def deepfakebench_name(key: str) -> str | None:
    """Turn a key of DeepfakeBench's `srm` checkpoints into a parameter's name.

    Returns:
        The name; None for a tensor that takes no part in detection: the channel adapters of its Xceptions, and the
        filter that blurs training pictures. A key in the authors' own naming becomes a name that no parameter has,
        because weights trained with the residual would load but score wrongly without it.
    """
    if key == "blur.weight" or ".adjust_channel." in key:
        return None
    if key.startswith("xception_"):
        return f"authors' {key}"
    for theirs, ours in (("backbone_rgb.", "xception_rgb.model."), ("backbone_srm.", "xception_srm.model.")):
        if key.startswith(theirs):
            name = ours + key.removeprefix(theirs)
            return name.replace(".last_linear.", ".last_linear.1.")
    return key


DETECTOR: Final = Detector(
    spec=uncalibrated_spec(
        "hff",
        "HFF, two-stream Xception with SRM noise, single frame",
        size=256,
        # FaceForensics++ enlarges dlib's box 1.3 times; measured, that is this square around YuNet's.
        crop=SquareCrop(scale=1.056, shift_down=0.040),
        paper=even_protocol(32),
    ),
    build=network("hff.Hff", fusion_residual=True),
    publication=Publication(
        title="Generalizing Face Forgery Detection with High-frequency Features",
        authors="Yuchen Luo et al.",
        venue="CVPR",
        year=2021,
        paper_url="https://arxiv.org/abs/2103.12376",
        code_url="https://github.com/crywang/face-forgery-detection",
        weights_license="no weights published",
        weights_at="The authors publish no trained weights; DeepfakeBench trained the network anew "
        "(hff-deepfakebench).",
        trained_on="FaceForensics++",
        figures=figures("AUC", "none was found outside the paper's own tables", {"data not in training": None}),
    ),
)
DEEPFAKEBENCH: Final = Detector(
    spec=uncalibrated_spec(
        "hff-deepfakebench",
        "HFF as trained by DeepfakeBench (its `srm`), single frame",
        size=256,
        crop=deepfakebench.CROP,
        paper=even_protocol(32),
    ),
    build=network("hff.Hff", fusion_residual=False),  # training/detectors/srm_detector.py
    publication=deepfakebench.released(
        "srm_best.pth", 95.76, 81.14, 79.26, 75.52, 86.38, 81.20, 69.95, 74.08, 60.14, 94.27
    ),
    rename=deepfakebench_name,
)
