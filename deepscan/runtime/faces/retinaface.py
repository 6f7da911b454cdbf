"""RetinaFace with MobileNet-0.25, the face detector of FTCN and AltFreezing, batched and at any size.

Postprocessing is AltFreezing's: anchors, decoding and non-maximum suppression as in
test_tools/ct/detection/alignment.py (anchors: 345-378), selection as in test_tools/ct/detection/utils.py:75-89.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.weights_store import Installed, find_installed
from deepscan.runtime.faces.detections import Faces, iou
from deepscan.runtime.system.machine import Device

INPUT_NAME: Final = "pictures"
OUTPUT_NAMES: Final = ("boxes", "scores", "points")
# Of each map: its stride, and the sides of the square anchors at each place, in pixels.
LEVELS: Final = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
CENTER_VARIANCE: Final = 0.1
SIZE_VARIANCE: Final = 0.2
CANDIDATE_SCORE: Final = 0.02
CANDIDATES_KEPT: Final = 5000
NMS_THRESHOLD: Final = 0.4
# The authors keep the best 750 of each picture before, which makes no difference.
FACES_KEPT: Final = 10
SCORE_THRESHOLD: Final = 0.5
SIZES_REMEMBERED: Final = 8


class RetinaFace:
    """Face detector for batches of pictures of any size, in the host's memory.

    It is no `DeviceFaceDetector`, so with it videos are decoded on the CPU.
    """

    def __init__(
        self,
        model: bytes,
        *,
        source: str,
        device: Device,
        threads: int,
        score_threshold: float = SCORE_THRESHOLD,
    ) -> None:
        """Load the network from an ONNX file that `export_retinaface` wrote; `source` names it in messages.

        Raises:
            MachineError: the device cannot be used.
            ModelError: the model is not RetinaFace.
        """
        # Imported here, as `identity` does not need ONNX Runtime.
        from deepscan.runtime.backends.sessions import Session

        self._session = Session(model, source=source, device=device, threads=threads, many_shapes=True)
        if list(self._session.inputs()) != [INPUT_NAME] or self._session.output_names() != list(OUTPUT_NAMES):
            raise ModelError(f"{source} is not a graph of RetinaFace: add the weights of retinaface again.")
        self._score_threshold = score_threshold

    @classmethod
    def identity(cls, *, score_threshold: float) -> list[str | float]:
        """See `FaceDetectorClass.identity`."""
        return [hashlib.sha256(_read(_installed())).hexdigest(), score_threshold, NMS_THRESHOLD]

    @classmethod
    def load(cls, *, device: Device, score_threshold: float) -> RetinaFace:
        """See `FaceDetectorClass.load`."""
        entry = _installed()
        source = entry.model_path.name
        return cls(_read(entry), source=source, device=device, threads=1, score_threshold=score_threshold)

    def detect(self, pictures: NDArray[np.uint8]) -> list[Faces]:
        """Find the faces of BGR pictures uint8 [N, h, w, 3], at most ten each. Boxes may reach beyond them."""
        outputs = self._session.run(OUTPUT_NAMES, {INPUT_NAME: pictures})
        anchors = anchors_of(*pictures.shape[1:3])
        return [self._select(anchors, *(output[n] for output in outputs)) for n in range(len(pictures))]

    def _select(
        self,
        anchors: NDArray[np.float32],
        box_codes: NDArray[np.float32],
        scores: NDArray[np.float32],
        landmark_codes: NDArray[np.float32],
    ) -> Faces:
        """Decode the candidates of one picture and keep the best that do not overlap a better one."""
        candidates = np.flatnonzero(scores > CANDIDATE_SCORE)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")][:CANDIDATES_KEPT]
        boxes = decoded_boxes(box_codes[candidates], anchors[candidates])
        chosen = apart(boxes, most=FACES_KEPT)
        chosen = chosen[scores[candidates[chosen]] >= self._score_threshold]
        kept = candidates[chosen]
        return Faces(boxes[chosen], decoded_landmarks(landmark_codes[kept], anchors[kept]), scores[kept])


def _installed() -> Installed:
    return find_installed("retinaface", "face detector")


def _read(entry: Installed) -> bytes:
    try:
        return entry.model_path.read_bytes()
    except OSError as error:
        message = f"{entry.model_path} cannot be read ({error.strerror}): add the weights of retinaface again."
        raise ModelError(message) from error


@lru_cache(maxsize=SIZES_REMEMBERED)
def anchors_of(height: int, width: int) -> NDArray[np.float32]:
    """Return the anchors (center x, center y, side) of a picture, float32 [A, 3], in pixels.

    Maps are in order from fine to coarse, each row by row, at each place the smaller anchor first. A map has as many
    places as strides fit into the picture, rounded up.
    """
    anchors = []
    for step, sides in LEVELS:
        rows, columns = -(-height // step), -(-width // step)
        row, column, side = np.meshgrid(np.arange(rows), np.arange(columns), sides, indexing="ij")
        anchors.append(np.stack([(column + 0.5) * step, (row + 0.5) * step, side], axis=-1).reshape(-1, 3))
    result = np.concatenate(anchors).astype(np.float32)
    result.flags.writeable = False
    return result


def decoded_boxes(codes: NDArray[np.float32], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decode predictions [K, 4] for anchors [K, 3] into corners (x0, y0, x1, y1) [K, 4], in pixels."""
    centers, sides = anchors[:, :2], anchors[:, 2:]
    centers = centers + codes[:, :2] * np.float32(CENTER_VARIANCE) * sides
    halves = sides * np.exp(codes[:, 2:] * np.float32(SIZE_VARIANCE)) / 2
    return np.concatenate([centers - halves, centers + halves], axis=1)


def decoded_landmarks(codes: NDArray[np.float32], anchors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decode predictions [K, 10] for anchors [K, 3] into landmarks [K, 5, 2], in pixels."""
    offsets = codes.reshape(-1, 5, 2) * np.float32(CENTER_VARIANCE)
    return anchors[:, None, :2] + offsets * anchors[:, None, 2:]


def apart(boxes: NDArray[np.float32], *, most: int) -> NDArray[np.intp]:
    """Return which of the boxes [K, 4], best first, have an IoU of at most `NMS_THRESHOLD` with every better one kept.

    Areas count whole pixels, both ends included, as in the authors' code.
    """
    left = np.arange(len(boxes))
    chosen: list[Any] = []
    while len(left) and len(chosen) < most:
        best, left = left[0], left[1:]
        chosen.append(best)
        left = left[iou(boxes[best], boxes[left], extra=1) <= NMS_THRESHOLD]
    return np.array(chosen, dtype=np.intp)
