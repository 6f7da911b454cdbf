"""The face detectors that can be chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.weights_store import find_installed
from deepscan.runtime.faces import yunet
from deepscan.runtime.faces.retinaface import RetinaFace
from deepscan.runtime.faces.yunet import Faces, YuNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deepscan.options import FaceDetectorChoice
    from deepscan.runtime.media.frames import DeviceFrame
    from deepscan.runtime.pipeline.stages import FaceDetector
    from deepscan.runtime.system.machine import Device

# Faces are searched for in a picture whose longer side is this many pixels: those of 1/60 of it are still found.
DETECTION_SIDE: Final = 640
# FTCN and AltFreezing: test_tools/ct/detection/utils.py:75-89. Tracks still begin with surer faces only.
AUTHORS_FACE_SCORE: Final = 0.5


class WholePicture:
    """For pictures that are crops of a face already: each holds one face, which fills it."""

    identity: Final[list[str | float]] = ["none"]

    def detect(self, pictures: NDArray[np.uint8]) -> list[Faces]:
        """Return one face for each picture."""
        count, height, width = pictures.shape[:3]
        return [_filling(height, width)] * count

    def detect_frames(self, frames: Sequence[DeviceFrame]) -> list[Faces]:
        """Return one face for each frame on a device."""
        return [_filling(*frame.shape[:2]) for frame in frames]


def _filling(height: int, width: int) -> Faces:
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    return Faces(box, np.zeros((1, 5, 2), dtype=np.float32), np.ones(1, dtype=np.float32))


def face_detector(choice: FaceDetectorChoice, *, device: Device, as_authors: bool) -> FaceDetector:
    """Load a face detector.

    Args:
        choice: which one.
        device: where it runs.
        as_authors: keep less certain faces too, as the rules for unbroken tracks want.

    Raises:
        ModelError: the weights of RetinaFace were not added.
        MachineError: the device cannot be used, or YuNet's package is broken.
    """
    if choice == "none":
        return WholePicture()
    threshold = AUTHORS_FACE_SCORE if as_authors else yunet.SCORE_THRESHOLD
    if choice == "yunet":
        return YuNet(device=device, threads=1, score_threshold=threshold)
    entry = find_installed("retinaface", "face detector")
    try:
        model = entry.model_path.read_bytes()
    except OSError as error:
        message = f"{entry.model_path} cannot be read ({error.strerror}): add the weights of retinaface again."
        raise ModelError(message) from error
    return RetinaFace(model, source=entry.model_path.name, device=device, threads=1, score_threshold=threshold)
