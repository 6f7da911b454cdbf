from __future__ import annotations

import numpy as np
import pytest

from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.face_selection import PLAIN_CONFIDENCE, PLAIN_PIXELS, FaceSelection


def faces(sides: list[float], confidence: float = 1.0) -> Faces:
    boxes = np.array([[5, 5, 5 + side / 2, 5 + side] for side in sides], dtype=np.float32).reshape(-1, 4)
    count = len(sides)
    return Faces(boxes, np.zeros((count, 5, 2), np.float32), np.full(count, confidence, np.float32))


@pytest.mark.parametrize(
    ("side", "confidence", "plain"),
    [
        (62.0, 0.95, 1),
        (PLAIN_PIXELS, PLAIN_CONFIDENCE, 1),
        (6.0, 0.95, 0),  # a speck
        (62.0, 0.6, 0),  # the face detector itself doubts it
        (100.0, 0.95, 0),  # large enough
    ],
)
def test_a_face_is_plainly_there_by_its_size_and_the_face_detectors_confidence(
    side: float, confidence: float, plain: int
) -> None:
    selection = FaceSelection(100)
    assert selection.kept(faces([side], confidence)).tolist() == [0] * (side >= 100)
    found = selection.skipped(7)
    assert (found.small_faces, found.plain_small_faces) == (int(side < 100), plain)
    assert (found.largest_small_face, found.longest_stretch) == (side if plain else 0.0, 7)


def test_the_largest_face_of_all_frames_is_reported_and_frames_without_faces_change_nothing() -> None:
    selection = FaceSelection(50)
    for sides in ([20.0, 31.5], [], [30.0, 50.0]):
        selection.kept(faces(sides))
    found = selection.skipped(0)
    assert (found.small_faces, found.plain_small_faces, found.largest_small_face) == (3, 3, 31.5)
