from __future__ import annotations

import numpy as np
import pytest

from deepscan.runtime.faces.face_selection import PLAIN_CONFIDENCE, PLAIN_PIXELS, SmallFaces
from deepscan.runtime.media.video_limits import CrowdLimit


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
    small = SmallFaces(100)
    large = small.are_not(np.array([side]), np.array([confidence], dtype=np.float32))
    assert large.tolist() == [side >= 100]
    found = small.skipped(7, CrowdLimit())
    assert (found.small_faces, found.plain_small_faces) == (int(side < 100), plain)
    assert (found.largest_small_face, found.longest_stretch) == (side if plain else 0.0, 7)


def test_the_largest_face_of_all_frames_is_reported_and_frames_without_faces_change_nothing() -> None:
    small = SmallFaces(50)
    for sides in ([20.0, 31.5], [], [30.0, 50.0]):
        small.are_not(np.array(sides), np.ones(len(sides), dtype=np.float32))
    found = small.skipped(0, CrowdLimit())
    assert (found.small_faces, found.plain_small_faces, found.largest_small_face) == (3, 3, 31.5)
