"""The specs of all detectors; no torch here, so that they can be listed where it is not installed.

A name that ends in `-deepfakebench` is that project's own training of the same network, with other input rules.
"""

from __future__ import annotations

from typing import Final, Literal

from deepscan.detector_names import unknown_detector
from deepscan.errors import UsageError
from deepscan.spec import (
    Calibration,
    ClipCrop,
    CropPolicy,
    DetectorSpec,
    LabelBand,
    PaperProtocol,
    Points,
    SimilarityCrop,
    SquareCrop,
)

DEEPFAKEBENCH: Final = "deepfakebench"
RGB_MEAN: Final = (123.675, 116.28, 103.53)  # of ImageNet, in 0..255
RGB_STD: Final = (58.395, 57.12, 57.375)
HALF: Final = (127.5, 127.5, 127.5)  # as mean and as standard deviation: -1..1
UNCALIBRATED: Final = Calibration(scale=1.0, offset=0.0)
# The authors of most detectors take the likelier class; nobody has calibrated them here.
LIKELIER_CLASS: Final = LabelBand(real_below=0.5, fake_from=0.5)
# Faces of fewer pixels are enlarged more than threefold by every detector here. The authors set no limit.
MIN_FACE_PIXELS: Final = 64

# FTCN and AltFreezing: test_tools/warp_for_xray.py:531-549, mean face in a picture of 256.
VIDEO_TARGET: Final[Points] = (
    (85.82991 / 256, 85.7792 / 256),
    (169.0532 / 256, 84.3381 / 256),
    (127.574 / 256, 137.0006 / 256),
    (90.6964 / 256, 174.7014 / 256),
    (167.3069 / 256, 173.3733 / 256),
)


def caddm_target() -> Points:
    """Where CADDM places the five points (lib/data_preprocess/cropface.py), in units of the side.

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


def deepfakebench_target() -> Points:
    """Where DeepfakeBench places the five points (preprocessing/preprocess.py), in units of the side.

    ArcFace's places in a picture of 112, moved 8 to the right, with a margin of 15 % of the picture on each side.
    """
    arcface = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041))
    return tuple((((x + 8) / 112 + 0.15) / 1.3, (y / 112 + 0.15) / 1.3) for x, y in arcface)


# The authors' places are for points that dlib finds. These are the places of deepscan's five points in the authors' own
# crops, on average over 170 faces (`python -m benchmarks.landmarks`; docs/detectors.md).
CADDM_TARGET: Final[Points] = (
    (0.3247, 0.4289),
    (0.6803, 0.4331),
    (0.4974, 0.6435),
    (0.3482, 0.8027),
    (0.6531, 0.8095),
)
DEEPFAKEBENCH_TARGET: Final[Points] = (
    (0.3760, 0.4839),
    (0.6154, 0.4747),
    (0.4993, 0.6229),
    (0.4042, 0.7341),
    (0.6096, 0.7283),
)


def _clip_protocol(frames: int, *, min_frames: int) -> PaperProtocol:
    """FTCN and AltFreezing: the first frames, every window, the mean over all windows of all tracks."""
    return PaperProtocol(
        choice="first",
        frames=frames,
        tracks="unbroken",
        stride=1,
        min_frames=min_frames,
        min_face_pixels=1,
        aggregate="mean",
    )


def _even_protocol(frames: int, *, stride: int = 1, min_frames: int = 1) -> PaperProtocol:
    """Frames from the first to the last, the largest face of each, the mean over all."""
    return PaperProtocol(
        choice="ends",
        frames=frames,
        tracks="largest",
        stride=stride,
        min_frames=min_frames,
        min_face_pixels=1,
        aggregate="mean",
    )


def _frame_spec(
    name: str,
    title: str,
    *,
    size: int,
    crop: CropPolicy,
    paper: PaperProtocol,
    mean: tuple[float, float, float] = HALF,
    std: tuple[float, float, float] = HALF,
    channel_order: Literal["RGB", "BGR"] = "RGB",
) -> DetectorSpec:
    return DetectorSpec(
        name=name,
        title=title,
        kind="frame",
        size=size,
        frames=1,
        min_frames=1,
        mean=mean,
        std=std,
        channel_order=channel_order,
        crop=crop,
        min_face_pixels=MIN_FACE_PIXELS,
        mirror=False,
        pooling="score",
        calibration=UNCALIBRATED,
        band=LIKELIER_CLASS,
        paper=paper,
    )


def _clip_spec(
    name: str,
    title: str,
    *,
    crop: CropPolicy,
    paper: PaperProtocol,
    band: LabelBand = LIKELIER_CLASS,
    frames: int = 32,
    min_frames: int = 9,
    mean: tuple[float, float, float] = RGB_MEAN,
    std: tuple[float, float, float] = RGB_STD,
) -> DetectorSpec:
    return DetectorSpec(
        name=name,
        title=title,
        kind="clip",
        size=224,
        frames=frames,
        min_frames=min_frames,
        mean=mean,
        std=std,
        channel_order="RGB",
        crop=crop,
        min_face_pixels=MIN_FACE_PIXELS,
        mirror=False,
        pooling="score",
        calibration=UNCALIBRATED,
        band=band,
        paper=paper,
    )


# Documentation of each assumption: docs/detectors.md.
_VIDEO_CROP = ClipCrop(target=VIDEO_TARGET, reach=0.5)
_ENLARGED_FACE = SquareCrop(scale=1.3, shift_down=0.0)
# FaceForensics++ enlarges dlib's box 1.3 times; measured, that is this square around YuNet's.
_ENLARGED_DLIB_FACE = SquareCrop(scale=1.056, shift_down=0.040)
_DEEPFAKEBENCH_CROP = SimilarityCrop(target=DEEPFAKEBENCH_TARGET)
_CADDM_CROP = SimilarityCrop(target=CADDM_TARGET)


def _caddm(backbone: str, title: str) -> DetectorSpec:
    return _frame_spec(
        f"caddm-{backbone}",
        f"CADDM, {title}, single frame",
        size=224,
        crop=_CADDM_CROP,
        paper=_even_protocol(32),  # an author, in the issues 15 and 37 of the repository
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        channel_order="BGR",
    )


LITE: Final = DetectorSpec(
    name="lite",
    title="EfficientNet-Lite2, single frame, embedded: face swaps; weak on re-enactment",
    kind="frame",
    size=224,
    frames=1,
    min_frames=1,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
    channel_order="RGB",
    crop=SquareCrop(scale=0.9, shift_down=0.03),
    min_face_pixels=100,
    mirror=True,
    pooling="logit",
    calibration=Calibration(scale=0.968, offset=-0.837),
    band=LabelBand(real_below=0.50, fake_from=0.85),
    paper=PaperProtocol(
        choice="middles", frames=16, tracks="overlap", stride=1, min_frames=1, min_face_pixels=100, aggregate="max"
    ),
)

SPECS: Final[dict[str, DetectorSpec]] = {
    spec.name: spec
    for spec in (
        LITE,
        # The thresholds below which the authors' demonstrations draw a face as genuine: AltFreezing demo.py,
        # FTCN test_on_raw_video.py. Both detectors give genuine clips scores near 0.
        _clip_spec(
            "altfreezing",
            "AltFreezing, 3-D ResNet-50, clips of 32 frames",
            crop=_VIDEO_CROP,
            paper=_clip_protocol(400, min_frames=1),
            band=LabelBand(real_below=0.04, fake_from=0.5),
        ),
        _clip_spec(
            "ftcn",
            "FTCN and temporal transformer, clips of 32 frames",
            crop=_VIDEO_CROP,
            paper=_clip_protocol(768, min_frames=9),
            band=LabelBand(real_below=0.002584857167676091, fake_from=0.5),
        ),
        _frame_spec(
            "hff",
            "HFF, two-stream Xception with SRM noise, single frame",
            size=256,
            crop=_ENLARGED_DLIB_FACE,
            paper=_even_protocol(32),
        ),
        _caddm("resnet34", "ResNet-34"),
        _caddm("efficientnet-b3", "EfficientNet-b3"),
        _caddm("efficientnet-b4", "EfficientNet-b4"),
        _frame_spec(
            "recce",
            "RECCE, Xception with reconstruction, single frame",
            size=299,
            crop=_ENLARGED_FACE,
            paper=_even_protocol(32),
        ),
        _clip_spec(
            f"altfreezing-{DEEPFAKEBENCH}",
            "AltFreezing as trained by DeepfakeBench, clips of 16 frames",
            crop=_DEEPFAKEBENCH_CROP,
            paper=_even_protocol(32, stride=16, min_frames=16),
            frames=16,
            mean=HALF,
            std=HALF,
        ),
        _clip_spec(
            f"ftcn-{DEEPFAKEBENCH}",
            "FTCN as trained by DeepfakeBench, clips of 16 frames",
            crop=_DEEPFAKEBENCH_CROP,
            paper=_even_protocol(32, stride=16, min_frames=16),
            frames=16,
            mean=HALF,
            std=HALF,
        ),
        _frame_spec(
            f"hff-{DEEPFAKEBENCH}",
            "HFF as trained by DeepfakeBench (its `srm`), single frame",
            size=256,
            crop=_DEEPFAKEBENCH_CROP,
            paper=_even_protocol(32),
        ),
        _frame_spec(
            f"recce-{DEEPFAKEBENCH}",
            "RECCE as trained by DeepfakeBench, single frame",
            size=256,
            crop=_DEEPFAKEBENCH_CROP,
            paper=_even_protocol(32),
        ),
    )
}


def spec_of(name: str, variant: str | None = None) -> DetectorSpec:
    """Return the spec of a detector.

    Args:
        name: of the detector.
        variant: `deepfakebench` for that project's training of it; None for the authors'.

    Raises:
        UsageError: there is no such detector, or no such variant of it.
    """
    full = f"{name}-{variant}" if variant else name
    if full in SPECS:
        return SPECS[full]
    if variant and name in SPECS:
        having = ", ".join(known.removesuffix(f"-{variant}") for known in SPECS if known.endswith(f"-{variant}"))
        raise UsageError(f"{name} has no variant {variant!r}: leave out --variant (it exists for {having or 'none'}).")
    raise unknown_detector(name)
