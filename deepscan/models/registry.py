"""Registry of the detectors of this package and of other packages, without torch.

Another package adds a detector with an entry point of the group `deepscan.detectors`, whose name is the detector's and
whose value leads to a `Detector`. Its module is imported only when the detector is requested, or when all are listed.
"""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Final

from deepscan.errors import ModelError, UsageError
from deepscan.models import altfreezing, caddm, ftcn, hff, lite, recce, retinaface
from deepscan.models.detector import Detector, FaceDetector
from deepscan.plugins import load_plugin, plugins

log = logging.getLogger(__name__)

GROUP: Final = "deepscan.detectors"
BUILTIN: Final[dict[str, Detector]] = {
    detector.name: detector
    for detector in (
        lite.DETECTOR,
        altfreezing.DETECTOR,
        ftcn.DETECTOR,
        hff.DETECTOR,
        caddm.RESNET34,
        caddm.EFFICIENTNET_B3,
        caddm.EFFICIENTNET_B4,
        recce.DETECTOR,
        altfreezing.DEEPFAKEBENCH,
        ftcn.DEEPFAKEBENCH,
        hff.DEEPFAKEBENCH,
        recce.DEEPFAKEBENCH,
    )
}
# Face detectors whose weights can be added, to be used instead of the built-in one.
FACE_DETECTORS: Final[dict[str, FaceDetector]] = {"retinaface": retinaface.FACE_DETECTOR}
BUILTIN_FACE_DETECTOR: Final = "yunet"
# Suffixes by which a name counts as the path of a detector.
FILE_ENDINGS: Final = frozenset(
    ".pth .pt .pkl .bin .ckpt .safetensors .tar .zip .onnx .plan .engine .trt .json".split()
)


def detector_names() -> tuple[str, ...]:
    """Return the names of all detectors, without importing other packages."""
    return tuple(dict.fromkeys([*BUILTIN, *plugins(GROUP)]))


def detectors() -> dict[str, Detector]:
    """Return all detectors by name; one of another package that cannot be loaded is left out, with a warning."""
    found = dict(BUILTIN)
    for name in detector_names()[len(BUILTIN) :]:
        try:
            found[name] = find_detector(name)
        except ModelError as error:
            log.warning("%s", error)
    return found


def find_detector(name: str, variant: str | None = None) -> Detector:
    """Return a detector.

    Args:
        name: of the detector.
        variant: `deepfakebench` for that project's training of it; None for the authors'.

    Raises:
        UsageError: there is no such detector, or no such variant of it.
        ModelError: the detector belongs to another package and cannot be loaded.
    """
    full = f"{name}-{variant}" if variant else name
    if full in BUILTIN:
        return BUILTIN[full]
    added = plugins(GROUP).get(full)
    if added is not None:
        found: Detector = load_plugin(
            added,
            f"detector {full}",
            wanted=f"Detector called {full}",
            fits=lambda loaded: isinstance(loaded, Detector) and loaded.name == full,
            raises=ModelError,
        )
        return found
    names = detector_names()
    if variant and name in names:
        having = ", ".join(known.removesuffix(f"-{variant}") for known in names if known.endswith(f"-{variant}"))
        raise UsageError(f"{name} has no variant {variant!r}: leave out --variant (it exists for {having or 'none'}).")
    raise unknown_detector(name)


def unknown_detector(name: str) -> UsageError:
    """Return the error that says what is wrong with the name of a detector."""
    path = Path(name)
    names = detector_names()
    use = f"use the name of a detector ({', '.join(names)}), or an exported .onnx file"
    # A folder that happens to have the name of a detector does not count as a path.
    looks_like_path = "/" in name or path.suffix.lower() in FILE_ENDINGS
    if looks_like_path and _is(path, folder=True):
        return UsageError(f"{name} is a folder, not a detector: {use}.")
    if looks_like_path and _is(path, folder=False):
        return UsageError(
            f"{name} is a file, not a detector: if it holds weights, run `deepscan weights add {quote(name)}`, and use "
            "the name of the detector that this finds."
        )
    if looks_like_path:
        return UsageError(f"{name} does not exist, and no detector is called that: {use}.")
    if name in (BUILTIN_FACE_DETECTOR, *FACE_DETECTORS):
        what = f"{name} finds faces and detects no forgeries: name it with --face-detector {name}, and as a detector"
        return UsageError(f"{what} one of {', '.join(names)}.")
    guesses = _near(name, names)
    guess = f" (did you mean {' or '.join(guesses)}?)" if guesses else ""
    return UsageError(f"No detector is called {name!r}{guess}: use one of {', '.join(names)}.")


def _near(name: str, names: tuple[str, ...]) -> list[str]:
    near = get_close_matches(name.lower(), names, n=2, cutoff=0.5)
    return near or [known for known in names if name and known.startswith(name.lower())][:2]


def _is(path: Path, *, folder: bool) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except (OSError, ValueError):
        return False
