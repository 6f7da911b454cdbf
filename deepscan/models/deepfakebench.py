"""Name, crop and publication that all detectors trained by DeepfakeBench share.

A detector whose name ends in `-deepfakebench` is that project's own training of the same network, with other input
rules (Yan et al. 2023). What is assumed, and where it was read: docs/detectors.md.
"""

from __future__ import annotations

from typing import Final

from deepscan.models.detector import Publication, figures
from deepscan.spec import Landmarks, SimilarityCrop

VARIANT: Final = "deepfakebench"
SUFFIX: Final = f"-{VARIANT}"
CODE_URL: Final = "https://github.com/SCLBD/DeepfakeBench"
TEST_SETS: Final = (
    "FaceForensics++ c23, FaceForensics++ c40, Celeb-DF v1, Celeb-DF v2, DeeperForensics, DeepFakeDetection, DFDC, "
    "DFDC preview, FaceShifter, UADFV"
).split(", ")
# The authors' places are for landmarks that dlib finds. These are the places of deepscan's five landmarks in the
# authors' own crops, on average over 170 faces (`python -m benchmarks.landmarks`; docs/detectors.md).
TARGET: Final[Landmarks] = (
    (0.3760, 0.4839),
    (0.6154, 0.4747),
    (0.4993, 0.6229),
    (0.4042, 0.7341),
    (0.6096, 0.7283),
)
CROP: Final = SimilarityCrop(target=TARGET)


def publication(weights_at: str, weights_files: tuple[str, ...] = (), values: tuple[float, ...] = ()) -> Publication:
    """Return the publication of one training; `values` are its README's frame AUCs, one for each of `TEST_SETS`."""
    measured: dict[str, float | None] = {"data not in training": None}
    source = "README of the code: no such row in its Results"
    if values:
        measured = dict(zip(TEST_SETS, values, strict=True))
        source = "README of the code, Results"
    return Publication(
        title="DeepfakeBench: A Comprehensive Benchmark of Deepfake Detection",
        authors="Zhiyuan Yan et al.",
        venue="NeurIPS, datasets and benchmarks",
        year=2023,
        paper_url="https://arxiv.org/abs/2307.01426",
        code_url=CODE_URL,
        code_license="CC-BY-NC-4.0",
        weights_license="none stated apart from the repository's CC-BY-NC-4.0",
        weights_at=weights_at,
        weights_files=weights_files,
        trained_on="FaceForensics++ c23",
        figures=figures("frame AUC", source, measured),
    )


def released(file: str, *values: float) -> Publication:
    """Return the publication of weights that a release of DeepfakeBench has; `values` as in `publication`."""
    return publication(f"{CODE_URL}/releases/download/v1.0.1/{file}", (file,), values)
