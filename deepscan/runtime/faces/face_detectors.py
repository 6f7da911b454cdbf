"""The registry of face detectors. Importing it, or asking for an identity, loads neither models nor their libraries."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from deepscan.options import FaceDetectorChoice
from deepscan.runtime.faces.detections import SCORE_THRESHOLD, FaceDetector, Faces
from deepscan.runtime.media.frames import DeviceFrame
from deepscan.runtime.system.machine import Device

# All that the answers of a face detector depend on: hashes and thresholds.
Identity: TypeAlias = list[str | float]

# The module and the class of each face detector; see `FaceDetectorClass`.
FACE_DETECTORS: Final[dict[FaceDetectorChoice, str]] = {
    "yunet": "deepscan.runtime.faces.yunet:YuNet",
    "retinaface": "deepscan.runtime.faces.retinaface:RetinaFace",
    "none": "deepscan.runtime.faces.face_detectors:WholePicture",
}
# Faces are searched for in a picture whose longer side is this many pixels: those of 1/60 of it are still found.
DETECTION_SIDE: Final = 640
# FTCN and AltFreezing: test_tools/ct/detection/utils.py:75-89. Tracks still begin with surer faces only.
AUTHORS_FACE_SCORE: Final = 0.5


class FaceDetectorClass(Protocol):
    """The class of a face detector. Its module imports cheaply."""

    def identity(self, *, score_threshold: float) -> Identity:
        """Return all that the answers depend on, without loading the model."""

    def load(self, *, device: Device, score_threshold: float) -> FaceDetector:
        """Load the model onto a device; faces with less confidence than the threshold are dropped."""


class WholePicture:
    """The face detector for pictures that are crops of a face already: each holds one face, which fills it."""

    @classmethod
    def identity(cls, *, score_threshold: float) -> Identity:  # noqa: ARG003
        """See `FaceDetectorClass.identity`."""
        return ["none"]

    @classmethod
    def load(cls, *, device: Device, score_threshold: float) -> WholePicture:  # noqa: ARG003
        """See `FaceDetectorClass.load`; there is no model."""
        return cls()

    def detect(self, pictures: NDArray[np.uint8]) -> list[Faces]:
        """Return one face for each picture."""
        count, height, width = pictures.shape[:3]
        return [_filling(height, width)] * count

    def detect_frames(self, frames: Sequence[DeviceFrame]) -> list[Faces]:
        """Return one face for each frame on a device."""
        return [_filling(*frame.shape[:2]) for frame in frames]


def face_detector_identity(choice: FaceDetectorChoice, *, as_authors: bool) -> Identity:
    """Return all that the answers of a face detector depend on, without loading it; see `face_detector`."""
    return _class_of(choice).identity(score_threshold=_score_threshold(as_authors=as_authors))


def face_detector(choice: FaceDetectorChoice, *, device: Device, as_authors: bool) -> FaceDetector:
    """Load a face detector; with `as_authors` less certain faces are kept too, as unbroken tracks require.

    Raises:
        ModelError: the weights of RetinaFace were not added.
        MachineError: the device cannot be used, or YuNet's package is broken.
    """
    return _class_of(choice).load(device=device, score_threshold=_score_threshold(as_authors=as_authors))


def _class_of(choice: FaceDetectorChoice) -> FaceDetectorClass:
    module, name = FACE_DETECTORS[choice].split(":")
    found: Any = getattr(import_module(module), name)
    return cast(FaceDetectorClass, found)


def _score_threshold(*, as_authors: bool) -> float:
    return AUTHORS_FACE_SCORE if as_authors else SCORE_THRESHOLD


def _filling(height: int, width: int) -> Faces:
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    return Faces(box, np.zeros((1, 5, 2), dtype=np.float32), np.ones(1, dtype=np.float32))
