"""Where each detector comes from: paper, code, licenses, weights and published figures; no torch here.

Figures are what their sources say, not what this package measures. `as others repeat it` means that the paper's own
table was not looked up; a value that nobody was found to give is None. Licenses are those of the repositories' own
license files; NONE_STATED means that neither such a file nor the README grants anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NONE_STATED: Final = "none stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One published measure of a detector.

    Attributes:
        test_set: on which data.
        metric: which measure, and per what: `video AUC`, `frame AUC`.
        value: in percent; None if unknown.
        source: table or page that gives the value.
    """

    test_set: str
    metric: str
    value: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Origin and terms of a detector and of its weights.

    Attributes:
        title: of the paper.
        authors: first author, and whether there are more.
        venue: where it appeared.
        year: when it appeared there.
        paper_url: None if there is no paper.
        code_url: of the authors' code; None if this package is that code.
        code_license: of the authors' code.
        weights_license: terms of the published weights.
        weights_at: how to get the weights, in one line.
        weights_files: names under which they are published; empty if none are, or if the names are not known.
        trained_on: data that the published weights saw.
        figures: published measures, in the order of their tables.
    """

    title: str
    authors: str
    venue: str
    year: int
    paper_url: str | None
    code_url: str | None
    code_license: str
    weights_license: str
    weights_at: str
    weights_files: tuple[str, ...]
    trained_on: str
    figures: tuple[Figure, ...]


def _figures(metric: str, source: str, values: dict[str, float | None]) -> tuple[Figure, ...]:
    """Return figures of one table: `values` by test set."""
    return tuple(Figure(test_set=name, metric=metric, value=value, source=source) for name, value in values.items())


_CARD: Final = "model card deepscan/assets/lite.md"

_LITE: Final = Publication(
    title="Model card: lite",
    authors="the deepscan developers",
    venue="part of this package",
    year=2026,
    paper_url=None,
    code_url=None,
    code_license="MIT",
    weights_license="MIT, as the package; the training data has terms of its own, see the model card",
    weights_at="Inside the package: there is nothing to download.",
    weights_files=("lite.onnx",),
    trained_on="DFDC, self-blended images, portraits of members of the US Congress",
    figures=(
        *_figures("crop AUC", _CARD, {"DFDC, identities not in training": 94.1}),
        *_figures(
            "video AUC",
            _CARD,
            {
                "FaceForensics++ c40": 71.0,
                "FaceForensics++ c40, Deepfakes": 91.0,
                "FaceForensics++ c40, FaceSwap": 81.0,
                "FaceForensics++ c40, Face2Face": 62.0,
                "FaceForensics++ c40, NeuralTextures": 50.0,
            },
        ),
    ),
)

_ALTFREEZING: Final = Publication(
    title="AltFreezing for More General Video Face Forgery Detection",
    authors="Zhendong Wang et al.",
    venue="CVPR",
    year=2023,
    paper_url="https://openaccess.thecvf.com/content/CVPR2023/papers/"
    "Wang_AltFreezing_for_More_General_Video_Face_Forgery_Detection_CVPR_2023_paper.pdf",
    code_url="https://github.com/ZhendongWang6/AltFreezing",
    code_license="MIT",
    weights_license=NONE_STATED,
    weights_at="README of the code: links to RecDrive and BaiduDrive, with the password for both.",
    weights_files=("model.pth",),
    trained_on="FaceForensics++",
    figures=_figures(
        "video AUC",
        "table 1 of arXiv 2307.08317, as others repeat it",
        {"Celeb-DF v2": 89.5, "DeepFakeDetection": 98.5, "FaceShifter": 99.4, "DeeperForensics": 99.3},
    ),
)

_FTCN: Final = Publication(
    title="Exploring Temporal Coherence for More General Video Face Forgery Detection",
    authors="Yinglin Zheng et al.",
    venue="ICCV",
    year=2021,
    paper_url="https://arxiv.org/abs/2108.06693",
    code_url="https://github.com/yinglinzheng/FTCN",
    code_license=NONE_STATED,
    weights_license=NONE_STATED,
    weights_at="https://github.com/yinglinzheng/FTCN/releases/download/weights/ftcn_tt.pth",
    weights_files=("ftcn_tt.pth",),
    trained_on="FaceForensics++",
    figures=_figures(
        "video AUC",
        "table 4 of arXiv 2108.06693, as others repeat it",
        {"Celeb-DF v2": 86.9, "DFDC (some say: its preview)": 74.0, "FaceShifter": 98.8, "DeeperForensics": 98.8},
    ),
)

_HFF: Final = Publication(
    title="Generalizing Face Forgery Detection with High-frequency Features",
    authors="Yuchen Luo et al.",
    venue="CVPR",
    year=2021,
    paper_url="https://arxiv.org/abs/2103.12376",
    code_url="https://github.com/crywang/face-forgery-detection",
    code_license=NONE_STATED,
    weights_license="no weights published",
    weights_at="The authors publish no trained weights; DeepfakeBench trained the network anew (hff-deepfakebench).",
    weights_files=(),
    trained_on="FaceForensics++",
    figures=_figures("AUC", "none was found outside the paper's own tables", {"data not in training": None}),
)

_RECCE: Final = Publication(
    title="End-to-End Reconstruction-Classification Learning for Face Forgery Detection",
    authors="Junyi Cao et al.",
    venue="CVPR",
    year=2022,
    paper_url="https://openaccess.thecvf.com/content/CVPR2022/html/"
    "Cao_End-to-End_Reconstruction-Classification_Learning_for_Face_Forgery_Detection_CVPR_2022_paper.html",
    code_url="https://github.com/VISION-SJTU/RECCE",
    code_license="MIT",
    weights_license=NONE_STATED,
    weights_at="An author's link and password in https://github.com/VISION-SJTU/RECCE/issues/2; it may have lapsed.",
    weights_files=(),
    trained_on="FaceForensics++ c23, anew after the paper",
    figures=(
        *_figures(
            "frame AUC",
            "the paper, as table 2 of https://pmc.ncbi.nlm.nih.gov/articles/PMC11042011 repeats it",
            {"FaceForensics++ c23, trained on c23": 99.32, "FaceForensics++ c40, trained on c40": 95.02},
        ),
        *_figures(
            "frame AUC",
            "an author in https://github.com/VISION-SJTU/RECCE/issues/9",
            {"Celeb-DF v2, trained on FaceForensics++ c40": 68.71},
        ),
    ),
)

_RETINAFACE: Final = Publication(
    title="RetinaFace: Single-stage Dense Face Localization in the Wild",
    authors="Jiankang Deng et al.",
    venue="arXiv",
    year=2019,
    paper_url="https://arxiv.org/abs/1905.00641",
    code_url="https://github.com/biubug6/Pytorch_Retinaface",
    code_license="MIT",
    weights_license=NONE_STATED,
    weights_at="https://github.com/yinglinzheng/face_weights/releases/download/v1/mobilenet0.25_Final.pth "
    "(the copy that FTCN's code fetches; the README of the code links to Google Drive).",
    weights_files=("mobilenet0.25_Final.pth",),
    trained_on="WIDER FACE",
    figures=_figures(
        "average precision",
        "README of the code: mobilenet0.25, single scale, settings as in MXNet",
        {"WIDER FACE val, easy": 88.67, "WIDER FACE val, medium": 87.09, "WIDER FACE val, hard": 80.99},
    ),
)


def _caddm(weights_file: str, *, faceforensics: float, celeb_df: float, dfdc: float) -> Publication:
    """Return CADDM with one of its backbones; the three lie in one download."""
    return Publication(
        title="Implicit Identity Leakage: The Stumbling Block to Improving Deepfake Detection Generalization",
        authors="Shichao Dong et al.",
        venue="CVPR",
        year=2023,
        paper_url="https://arxiv.org/abs/2210.14457",
        code_url="https://github.com/megvii-research/CADDM",
        code_license="Apache-2.0",
        weights_license=NONE_STATED,
        weights_at="https://drive.google.com/file/d/1JNMI4RGssgCOl9t05jkUa6imnw5XR5id/view (linked in the README).",
        weights_files=(weights_file,),
        trained_on="FaceForensics++",
        figures=_figures(
            "video AUC",
            "README of the code, Results",
            {"FaceForensics++": faceforensics, "Celeb-DF": celeb_df, "DFDC": dfdc},
        ),
    )


_BENCH: Final = "https://github.com/SCLBD/DeepfakeBench"
_BENCH_SETS: Final = (
    "FaceForensics++ c23, FaceForensics++ c40, Celeb-DF v1, Celeb-DF v2, DeeperForensics, DeepFakeDetection, DFDC, "
    "DFDC preview, FaceShifter, UADFV"
).split(", ")


def _bench(weights_at: str, weights_files: tuple[str, ...] = (), values: tuple[float, ...] = ()) -> Publication:
    """Return a training by DeepfakeBench; `values` are its README's frame AUCs, one for each of `_BENCH_SETS`."""
    measured: dict[str, float | None] = {"data not in training": None}
    source = "README of the code: no such row in its Results"
    if values:
        measured = dict(zip(_BENCH_SETS, values, strict=True))
        source = "README of the code, Results"
    return Publication(
        title="DeepfakeBench: A Comprehensive Benchmark of Deepfake Detection",
        authors="Zhiyuan Yan et al.",
        venue="NeurIPS, datasets and benchmarks",
        year=2023,
        paper_url="https://arxiv.org/abs/2307.01426",
        code_url=_BENCH,
        code_license="CC-BY-NC-4.0",
        weights_license="none stated apart from the repository's CC-BY-NC-4.0",
        weights_at=weights_at,
        weights_files=weights_files,
        trained_on="FaceForensics++ c23",
        figures=_figures("frame AUC", source, measured),
    )


def _bench_release(file: str, *values: float) -> Publication:
    return _bench(f"{_BENCH}/releases/download/v1.0.1/{file}", (file,), values)


# By the name of the detector's spec; besides, the face detector that can be used instead of the built-in one.
PUBLICATIONS: Final[dict[str, Publication]] = {
    "lite": _LITE,
    "altfreezing": _ALTFREEZING,
    "ftcn": _FTCN,
    "hff": _HFF,
    "caddm-resnet34": _caddm("resnet34.pkl", faceforensics=99.70, celeb_df=91.15, dfdc=71.49),
    "caddm-efficientnet-b3": _caddm("efficientnet-b3.pkl", faceforensics=99.78, celeb_df=93.08, dfdc=73.34),
    "caddm-efficientnet-b4": _caddm("efficientnet-b4.pkl", faceforensics=99.79, celeb_df=93.88, dfdc=73.85),
    "recce": _RECCE,
    "altfreezing-deepfakebench": _bench(
        "An earlier README of the code linked a Google Drive file; the later one and the releases have none."
    ),
    "ftcn-deepfakebench": _bench("No trained weights found: release v1.0.3 has only those to start the training from."),
    "hff-deepfakebench": _bench_release(
        "srm_best.pth", 95.76, 81.14, 79.26, 75.52, 86.38, 81.20, 69.95, 74.08, 60.14, 94.27
    ),
    "recce-deepfakebench": _bench_release(
        "recce_best.pth", 96.21, 81.90, 76.77, 73.19, 79.85, 81.19, 71.33, 74.19, 60.95, 94.46
    ),
    "retinaface": _RETINAFACE,
}
