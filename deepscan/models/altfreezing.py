"""AltFreezing: a 3-D ResNet-50 with one output. The name is that of its training schedule.

Wang et al. 2023, "AltFreezing for more general video face forgery detection" (CVPR).
"""

from __future__ import annotations

from typing import Final

from deepscan.models import deepfakebench, ftcn
from deepscan.models.detector import (
    RGB_MEAN,
    RGB_STD,
    Detector,
    Publication,
    even_protocol,
    figures,
    network,
    uncalibrated_spec,
)
from deepscan.spec import LabelBand

DETECTOR: Final = Detector(
    spec=uncalibrated_spec(
        "altfreezing",
        "AltFreezing, 3-D ResNet-50, clips of 32 frames",
        crop=ftcn.CROP,
        paper=ftcn.first_frames(400, min_frames=1),
        size=224,
        frames=32,
        min_frames=9,
        mean=RGB_MEAN,
        std=RGB_STD,
        # Below the first, the authors' demonstration (demo.py) draws a face as genuine.
        band=LabelBand(real_below=0.04, fake_from=0.5),
    ),
    build=network("i3d.AltFreezing"),
    publication=Publication(
        title="AltFreezing for More General Video Face Forgery Detection",
        authors="Zhendong Wang et al.",
        venue="CVPR",
        year=2023,
        paper_url="https://openaccess.thecvf.com/content/CVPR2023/papers/"
        "Wang_AltFreezing_for_More_General_Video_Face_Forgery_Detection_CVPR_2023_paper.pdf",
        code_url="https://github.com/ZhendongWang6/AltFreezing",
        code_license="MIT",
        weights_at="README of the code: links to RecDrive and BaiduDrive, with the password for both.",
        weights_files=("model.pth",),
        trained_on="FaceForensics++",
        figures=figures(
            "video AUC",
            "table 1 of arXiv 2307.08317, as others repeat it",
            {"Celeb-DF v2": 89.5, "DeepFakeDetection": 98.5, "FaceShifter": 99.4, "DeeperForensics": 99.3},
        ),
    ),
)
DEEPFAKEBENCH: Final = Detector(
    spec=uncalibrated_spec(
        "altfreezing-deepfakebench",
        "AltFreezing as trained by DeepfakeBench, clips of 16 frames",
        crop=deepfakebench.CROP,
        paper=even_protocol(32, stride=16, min_frames=16),
        size=224,
        frames=16,
        min_frames=9,
    ),
    # Its head pools 8 steps of time where the authors' pools 16: all there are, so the layers are the same.
    build=DETECTOR.build,
    publication=deepfakebench.publication(
        "An earlier README of the code linked a Google Drive file; the later one and the releases have none."
    ),
)
