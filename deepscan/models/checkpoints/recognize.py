"""Recognizes the detector of a file of weights by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import nn

from deepscan.errors import ModelError, UsageError
from deepscan.models.checkpoints.matching import COUNTER, Comparison, compare, leading_paths
from deepscan.models.deepfakebench import SUFFIX
from deepscan.models.deepfakebench import VARIANT as DEEPFAKEBENCH
from deepscan.models.detector import Detector, FaceDetector, Rename
from deepscan.models.registry import FACE_DETECTORS, detectors

# Files that are found beside detectors, each told by two tensors and the beginnings of their shapes.
Marks = dict[str, tuple[int, ...]]
KNOWN_OTHERS: Final[tuple[tuple[str, Marks], ...]] = (
    ("the ImageNet weights of Xception", {"block1.rep.0.conv1.weight": (), "fc.weight": (1000, 2048)}),
    ("the ImageNet weights of Xception", {"block1.rep.0.conv1.weight": (), "last_linear.weight": (1000, 2048)}),
    ("the ImageNet weights of an EfficientNet", {"_conv_stem.weight": (), "_fc.weight": (1000,)}),
    ("the ImageNet weights of an EfficientNet", {"conv_stem.weight": (), "classifier.weight": (1000,)}),  # timm
    ("ImageNet weights from torchvision", {"features.0.0.weight": (), "classifier.1.weight": (1000,)}),
    ("the ImageNet weights of a ResNet", {"layer1.0.conv1.weight": (), "fc.weight": (1000,)}),
    (
        "the Kinetics weights of a ResNet for actions",
        {"s1.pathway0_stem.conv.weight": (), "head.projection.weight": (400,)},
    ),
    # 68 points, from the face tools beside FTCN and AltFreezing, which do not need it either.
    (
        "the weights of a network for facial landmarks",
        {"linear7.conv.weight": (1280, 1, 7, 7), "linear1.conv.weight": (136, 1280)},
    ),
    (
        "the weights of DeepfakeBench's xception, which deepscan does not have",
        {"adjust_channel.0.weight": (), "last_linear.weight": (2, 2048)},
    ),
    (
        "the weights of DeepfakeBench's efficientnetb4, which deepscan does not have",
        {"efficientnet._conv_stem.weight": (), "last_layer.weight": (2, 1792)},
    ),
)


@cache
def places(build: Callable[[], nn.Module]) -> Mapping[str, torch.Tensor]:
    """Return the names, shapes and types of a network's tensors, without their numbers."""
    with torch.device("meta"):
        return build().state_dict()


def recognize(tensors: Mapping[str, torch.Tensor], path: Path, *, variant: str | None = None) -> str:
    """Return the name of the detector, or face detector, whose network these tensors fit in shape and type.

    The authors' and DeepfakeBench's ftcn, and altfreezing, have the same names and shapes: only `variant` tells.

    Raises:
        UsageError: there is no such variant.
        ModelError: no detector fits, several fit, or the weights are of the variant that was not asked for.
    """
    if variant not in (None, DEEPFAKEBENCH):
        raise UsageError(f"There is no variant {variant!r}: leave out --variant, or use {DEEPFAKEBENCH}.")
    fitting = [name for name, comparison in _comparisons(tensors).items() if comparison.fits]
    chosen = [name for name in fitting if name.endswith(SUFFIX) == (variant is not None)]
    if len(chosen) == 1:
        return chosen[0]
    if len(chosen) > 1:
        raise ModelError(
            f"{path} fits several detectors ({', '.join(chosen)}): its names and shapes cannot tell which."
        )
    if fitting and variant is None:
        base = fitting[0].removesuffix(SUFFIX)
        raise ModelError(f"{path} holds DeepfakeBench's weights of {base}: add --variant {DEEPFAKEBENCH}.")
    if fitting:
        raise ModelError(f"{path} holds weights of {fitting[0]} that are not DeepfakeBench's: leave out --variant.")
    raise ModelError(f"{path} fits no detector: {likeness(tensors)}.")


def likeness(tensors: Mapping[str, torch.Tensor], asked: str | None = None) -> str:
    """Return a clause that says what the tensors seem to be, and what to give for the detector that was `asked` for."""
    instead = f"give those of {asked}" if asked else "give the weights of a detector that `deepscan models` lists"
    comparisons = _comparisons(tensors)
    for name, comparison in comparisons.items():
        if comparison.fits:
            return f"these are {_named(name)}: {_other_variant(name, asked) or instead}"
    for title, marks in KNOWN_OTHERS:
        if _has(tensors, marks):
            return f"these are {title}: {instead}"
    nearest = max(comparisons, key=lambda name: comparisons[name].agreeing)
    best = comparisons[nearest]
    if not best.agreeing:
        return f"no detector has such names and shapes: {instead}"
    total = sum(not place.endswith(COUNTER) for place in places(_known()[nearest].build))
    differences = f"; {best.differences()}" if nearest != asked else ""
    return f"the nearest is {nearest} ({best.agreeing} of {total} tensors agree{differences}): {instead}"


def rename_for(name: str) -> Rename | None:
    """Return what turns the names in checkpoints of a detector, or face detector, into those of its parameters."""
    known = _known().get(name)
    return known.rename if known else None


def _known() -> dict[str, Detector | FaceDetector]:
    return {**detectors(), **FACE_DETECTORS}


def _comparisons(tensors: Mapping[str, torch.Tensor]) -> dict[str, Comparison]:
    return {name: compare(tensors, places(known.build), known.rename) for name, known in _known().items()}


def _named(name: str) -> str:
    if name in FACE_DETECTORS:
        return f"the weights of the face detector {name}"
    base = name.removesuffix(SUFFIX)
    return f"the weights of {base}" if name == base else f"DeepfakeBench's weights of {base}"


def _other_variant(name: str, asked: str | None) -> str:
    """Return which option to change if `name` is but another variant of the detector asked for."""
    if name == f"{asked}{SUFFIX}":
        return f"add --variant {DEEPFAKEBENCH}"
    return "leave out --variant" if asked == f"{name}{SUFFIX}" else ""


def _has(tensors: Mapping[str, torch.Tensor], marks: Marks) -> bool:
    """Whether all the marks are there, below a path that all tensors share."""
    return any(
        all(
            path + name in tensors and tuple(tensors[path + name].shape[: len(shape)]) == shape
            for name, shape in marks.items()
        )
        for path in leading_paths(tensors, least=len(tensors))
    )
