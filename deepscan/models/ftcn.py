"""FTCN: a 3-D ResNet-50 with temporal kernels only, and a temporal transformer on top.

Zheng et al. 2021, "Exploring temporal coherence for more general video face forgery detection" (ICCV).
"""

from __future__ import annotations

from typing import Final

from deepscan.models import deepfakebench
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
from deepscan.spec import ClipCrop, LabelBand, Landmarks, PaperProtocol

# Mean face in a picture of 256, the same for AltFreezing: test_tools/warp_for_xray.py:531-549.
TARGET: Final[Landmarks] = (
    (85.82991 / 256, 85.7792 / 256),
    (169.0532 / 256, 84.3381 / 256),
    (127.574 / 256, 137.0006 / 256),
    (90.6964 / 256, 174.7014 / 256),
    (167.3069 / 256, 173.3733 / 256),
)
CROP: Final = ClipCrop(target=TARGET, reach=0.5)


def first_frames(frames: int, *, min_frames: int) -> PaperProtocol:
    """Return the protocol of FTCN and AltFreezing: the first frames, every window, the mean over all windows."""
    return PaperProtocol(
        choice="first",
        frames=frames,
        tracks="unbroken",
        stride=1,
        min_frames=min_frames,
        min_face_pixels=1,
        aggregate="mean",
    )


DETECTOR: Final = Detector(
    spec=uncalibrated_spec(
        "ftcn",
        "FTCN and temporal transformer, clips of 32 frames",
        crop=CROP,
        paper=first_frames(768, min_frames=9),
        size=224,
        frames=32,
        min_frames=9,
        mean=RGB_MEAN,
        std=RGB_STD,
        # Below the first, the authors' demonstration (test_on_raw_video.py) draws a face as genuine.
        band=LabelBand(real_below=0.002584857167676091, fake_from=0.5),
    ),
    build=network("ftcn.FTCN", frame_pool=2),
    publication=Publication(
        title="Exploring Temporal Coherence for More General Video Face Forgery Detection",
        authors="Yinglin Zheng et al.",
        venue="ICCV",
        year=2021,
        paper_url="https://arxiv.org/abs/2108.06693",
        code_url="https://github.com/yinglinzheng/FTCN",
        weights_at="https://github.com/yinglinzheng/FTCN/releases/download/weights/ftcn_tt.pth",
        weights_files=("ftcn_tt.pth",),
        trained_on="FaceForensics++",
        figures=figures(
            "video AUC",
            "table 4 of arXiv 2108.06693, as others repeat it",
            {"Celeb-DF v2": 86.9, "DFDC (some say: its preview)": 74.0, "FaceShifter": 98.8, "DeeperForensics": 98.8},
        ),
    ),
)
DEEPFAKEBENCH: Final = Detector(
    spec=uncalibrated_spec(
        "ftcn-deepfakebench",
        "FTCN as trained by DeepfakeBench, clips of 16 frames",
        crop=deepfakebench.CROP,
        paper=even_protocol(32, stride=16, min_frames=16),
        size=224,
        frames=16,
        min_frames=9,
    ),
    # No frames are pooled (training/detectors/ftcn_detector.py, `no_time_pool`). The weights have the names and shapes
    # of the authors', so a checkpoint does not tell which it is for.
    build=network("ftcn.FTCN", frame_pool=1),
    publication=deepfakebench.publication(
        "No trained weights found: release v1.0.3 has only those to start the training from."
    ),
)
