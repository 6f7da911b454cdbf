"""RetinaFace with MobileNet-0.25, the face detector of FTCN and AltFreezing.

Deng et al. 2020, "RetinaFace: Single-stage Dense Face Localization in the Wild".
"""

from __future__ import annotations

from typing import Final

from deepscan.models.detector import FaceDetector, Publication, figures, network

FACE_DETECTOR: Final = FaceDetector(
    name="retinaface",
    title="RetinaFace, MobileNet-0.25, for --face-detector retinaface",
    build=network("retinaface.RetinaFace"),
    publication=Publication(
        title="RetinaFace: Single-stage Dense Face Localization in the Wild",
        authors="Jiankang Deng et al.",
        venue="arXiv",
        year=2019,
        paper_url="https://arxiv.org/abs/1905.00641",
        code_url="https://github.com/biubug6/Pytorch_Retinaface",
        code_license="MIT",
        weights_at="https://github.com/yinglinzheng/face_weights/releases/download/v1/mobilenet0.25_Final.pth "
        "(the copy that FTCN's code fetches; the README of the code links to Google Drive).",
        weights_files=("mobilenet0.25_Final.pth",),
        trained_on="WIDER FACE",
        figures=figures(
            "average precision",
            "README of the code: mobilenet0.25, single scale, settings as in MXNet",
            {"WIDER FACE val, easy": 88.67, "WIDER FACE val, medium": 87.09, "WIDER FACE val, hard": 80.99},
        ),
    ),
)
