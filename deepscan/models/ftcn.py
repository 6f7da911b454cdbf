"""FTCN: a 3-D ResNet-50 with temporal kernels only, and a temporal transformer on top.

Zheng et al. 2021, "Exploring temporal coherence for more general video face forgery detection" (ICCV).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from deepscan.models import deepfakebench
from deepscan.models.detector import HALF, Detector, Publication, clip_spec, even_protocol, figures
from deepscan.spec import ClipCrop, LabelBand, Landmarks, PaperProtocol

if TYPE_CHECKING:
    from deepscan.models.networks.ftcn import FTCN

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


def build() -> FTCN:
    """Return the untrained network, for clips of 32 frames."""
    from deepscan.models.networks.ftcn import FTCN

    return FTCN(frame_pool=2)


def build_deepfakebench() -> FTCN:
    """Return the untrained network as DeepfakeBench has it, for clips of 16 frames: no frames are pooled.

    The names and shapes of the weights are the same as the authors', so a checkpoint does not tell which it is for
    (`training/detectors/ftcn_detector.py`, `no_time_pool`).
    """
    from deepscan.models.networks.ftcn import FTCN

    return FTCN(frame_pool=1)


DETECTOR: Final = Detector(
    spec=clip_spec(
        "ftcn",
        "FTCN and temporal transformer, clips of 32 frames",
        crop=CROP,
        paper=first_frames(768, min_frames=9),
        # Below the first, the authors' demonstration (test_on_raw_video.py) draws a face as genuine.
        band=LabelBand(real_below=0.002584857167676091, fake_from=0.5),
    ),
    build=build,
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
    spec=clip_spec(
        "ftcn-deepfakebench",
        "FTCN as trained by DeepfakeBench, clips of 16 frames",
        crop=deepfakebench.CROP,
        paper=even_protocol(32, stride=16, min_frames=16),
        frames=16,
        mean=HALF,
        std=HALF,
    ),
    build=build_deepfakebench,
    publication=deepfakebench.publication(
        "No trained weights found: release v1.0.3 has only those to start the training from."
    ),
)
