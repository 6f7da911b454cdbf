"""The names of all detectors, and what is said of a name that is none."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Final

from deepscan.errors import ModelError, UsageError

ARTIFACT: Final = ".onnx"
# In the order of their specs in `deepscan.models.specs`, which `deepscan.runtime` does not import.
DETECTORS: Final = (
    "lite",
    "altfreezing",
    "ftcn",
    "hff",
    "caddm-resnet34",
    "caddm-efficientnet-b3",
    "caddm-efficientnet-b4",
    "recce",
    "altfreezing-deepfakebench",
    "ftcn-deepfakebench",
    "hff-deepfakebench",
    "recce-deepfakebench",
)
FACE_DETECTORS: Final = ("yunet", "retinaface")
ENDINGS: Final = frozenset(".pth .pt .pkl .bin .ckpt .safetensors .tar .zip .onnx .plan .engine .trt .json".split())


def refuse_missing_artifact(name: str) -> None:
    """Refuse the path of an exported detector where there is no file.

    Raises:
        ModelError: it does not exist, or is a folder.
    """
    path = Path(name)
    try:
        if path.is_dir():
            raise ModelError(f"{name} is a folder: give the {ARTIFACT} file in it.")
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{name} does not exist: check the path of the exported detector.") from error
    except (OSError, ValueError):  # the reader says more
        return


def unknown_detector(name: str) -> UsageError:
    """Return the error that says what is wrong with the name of a detector."""
    path = Path(name)
    use = f"use the name of a detector ({', '.join(DETECTORS)}), or an exported {ARTIFACT} file"
    # A folder that happens to have the name that was meant for a detector is no path.
    looks_like_path = "/" in name or path.suffix.lower() in ENDINGS
    if looks_like_path and _is(path, folder=True):
        return UsageError(f"{name} is a folder and no detector: {use}.")
    if looks_like_path and _is(path, folder=False):
        return UsageError(
            f"{name} is a file and no detector: if it holds weights, run `deepscan weights add {quote(name)}`, and use "
            "the name of the detector that this finds."
        )
    if looks_like_path:
        return UsageError(f"{name} does not exist, and no detector is called that: {use}.")
    if name in FACE_DETECTORS:
        what = f"{name} finds faces and detects no forgeries: name it with --face-detector {name}, and as a detector"
        return UsageError(f"{what} one of {', '.join(DETECTORS)}.")
    near = get_close_matches(name.lower(), DETECTORS, n=2, cutoff=0.5)
    near = near or [known for known in DETECTORS if name and known.startswith(name.lower())][:2]
    guess = f" (did you mean {' or '.join(near)}?)" if near else ""
    return UsageError(f"No detector is called {name!r}{guess}: use one of {', '.join(DETECTORS)}.")


def _is(path: Path, *, folder: bool) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except (OSError, ValueError):
        return False
