"""What follows RetinaFace's network, on graphs that answer with given maps; the network has tests of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deepscan.errors import ModelError
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.retinaface import INPUT_NAME, OUTPUT_NAMES, RetinaFace, anchors_of, apart

Floats = NDArray[np.float32]


def graph(*maps: Floats, names: tuple[str, ...] = OUTPUT_NAMES) -> bytes:
    """Return an ONNX model that gives these maps for any pictures."""
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))
        for name, values in zip(names, maps, strict=True)
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
        for name, values in zip(names, maps, strict=True)
    ]
    inputs = [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])]
    model = helper.make_model(
        helper.make_graph(constants, "maps", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    data: bytes = model.SerializeToString()
    return data


def detector(*maps: Floats, score_threshold: float = 0.5) -> RetinaFace:
    model = graph(*(values.astype(np.float32) for values in maps))
    return RetinaFace(model, source="maps.onnx", device="cpu", threads=1, score_threshold=score_threshold)


def nothing(count: int, height: int, width: int) -> tuple[Floats, Floats, Floats]:
    """Return maps in which no anchor holds a face: boxes, scores, points."""
    anchors = len(anchors_of(height, width))
    shapes = (count, anchors, 4), (count, anchors), (count, anchors, 10)
    boxes, scores, points = (np.zeros(shape, np.float32) for shape in shapes)
    return boxes, scores, points


def blank(count: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((count, height, width, 3), dtype=np.uint8)


def faces_by_the_letter(boxes: Floats, scores: Floats, points: Floats, height: int, width: int) -> Faces:
    """Do for one picture what the authors' description says, number by number, in units of the picture's sides."""
    priors = []
    for step, sizes in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(math.ceil(height / step)):
            for column in range(math.ceil(width / step)):
                for size in sizes:
                    x, y = (column + 0.5) * step / width, (row + 0.5) * step / height
                    priors.append((x, y, size / width, size / height))
    found = []
    for (x, y, w, h), code, score, marks in zip(priors, boxes, scores, points, strict=True):
        if score <= 0.02:
            continue
        center_x, center_y = x + code[0] * 0.1 * w, y + code[1] * 0.1 * h
        half_w, half_h = w * math.exp(code[2] * 0.2) / 2, h * math.exp(code[3] * 0.2) / 2
        corners = center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h
        box = tuple(corner * side for corner, side in zip(corners, (width, height) * 2, strict=True))
        places = [((x + mx * 0.1 * w) * width, (y + my * 0.1 * h) * height) for mx, my in marks.reshape(5, 2)]
        found.append((score, box, places))
    found.sort(key=lambda face: -face[0])
    kept: list[tuple[float, tuple[float, ...], list[tuple[float, float]]]] = []
    for face in found[:5000]:
        if all(overlap(face[1], better[1]) <= 0.4 for better in kept):
            kept.append(face)
    kept = [face for face in kept[:750][:10] if face[0] >= 0.5]
    return Faces(
        np.array([face[1] for face in kept], np.float32).reshape(-1, 4),
        np.array([face[2] for face in kept], np.float32).reshape(-1, 5, 2),
        np.array([face[0] for face in kept], np.float32),
    )


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return the intersection over union, where a box from 0 to 9 is 10 pixels wide."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b))
    return across * down / (areas - across * down)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (67, 99), (97, 33), (5, 300)])
def test_faces_are_those_of_the_authors_rules(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    maps = [rng.normal(0, 1, values.shape).astype(np.float32) for values in nothing(3, height, width)]
    maps[1] = rng.random(maps[1].shape, dtype=np.float32) ** 3
    maps[1][2] /= 3  # no face is sure enough
    found = detector(*maps).detect(blank(3, height, width))
    for number, faces in enumerate(found):
        boxes, scores, points = (values[number] for values in maps)
        expected = faces_by_the_letter(boxes, scores, points, height, width)
        assert len(faces) == len(expected)
        np.testing.assert_allclose(faces.boxes, expected.boxes, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(faces.landmarks, expected.landmarks, rtol=1e-5, atol=1e-3)
        np.testing.assert_array_equal(faces.scores, expected.scores)
    assert [bool(len(faces)) for faces in found] == [True, True, False]


def test_a_face_has_the_size_and_the_types_of_the_pictures_pixels() -> None:
    boxes, scores, points = nothing(1, 40, 60)
    place = 5 * 8 * 2 + (1 * 4 + 2) * 2 + 1  # 16-pixel map, second row, third column: center (40, 24), side 128
    scores[0, place] = 0.75
    boxes[0, place] = [1, -2, 0, math.log(0.5) / 0.2]
    points[0, place] = [0, 0, 1, 0, 0, 1, -1, 0, 0, -1]
    [faces] = detector(boxes, scores, points).detect(blank(1, 40, 60))
    x, y = 40 + 12.8, 24 - 25.6
    np.testing.assert_allclose(faces.boxes, [[x - 64, y - 32, x + 64, y + 32]], rtol=1e-5)
    steps = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    np.testing.assert_allclose(faces.landmarks, [[40, 24] + 12.8 * steps], rtol=1e-5)
    assert faces.scores.tolist() == [0.75]
    assert faces.boxes.dtype == faces.landmarks.dtype == faces.scores.dtype == np.float32


@pytest.mark.parametrize(("threshold", "kept"), [(0.5, [0.75, 0.5]), (0.25, [0.75, 0.5, 0.25]), (0.8, [])])
def test_faces_below_the_threshold_are_dropped(threshold: float, kept: list[float]) -> None:
    boxes, scores, points = nothing(1, 64, 200)
    scores[0, [0, 20, 40]] = 0.25, 0.75, 0.5  # anchors of the first row, ten places apart
    [faces] = detector(boxes, scores, points, score_threshold=threshold).detect(blank(1, 64, 200))
    assert faces.scores.tolist() == kept
    assert (faces.boxes.shape, faces.landmarks.shape) == ((len(kept), 4), (len(kept), 5, 2))


def test_at_most_ten_faces_are_kept_best_first() -> None:
    boxes, scores, points = nothing(1, 64, 480)
    scores[0, 0:96:8] = np.linspace(0.6, 0.9, 12)  # anchors of 16 pixels, 32 pixels apart
    [faces] = detector(boxes, scores, points).detect(blank(1, 64, 480))
    assert faces.scores.tolist() == np.linspace(0.6, 0.9, 12, dtype=np.float32)[:1:-1].tolist()


def test_boxes_that_share_two_fifths_are_apart_and_those_that_share_more_are_not() -> None:
    first = [0, 0, 6, 0]  # seven pixels, as both ends count
    shares_four_of_ten, shares_five_of_nine = [3, 0, 9, 0], [2, 0, 8, 0]
    boxes = np.array([first, shares_four_of_ten, shares_five_of_nine], np.float32)
    assert apart(boxes[[0, 1]], most=10).tolist() == [0, 1]
    assert apart(boxes[[0, 2]], most=10).tolist() == [0]


def test_a_box_that_was_dropped_drops_no_other() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9], [10, 0, 19, 9]], np.float32)
    assert apart(boxes, most=10).tolist() == [0, 1, 2]  # a third shared
    boxes = np.array([[0, 0, 9, 9], [3, 0, 12, 9], [6, 0, 15, 9]], np.float32)
    assert apart(boxes, most=10).tolist() == [0, 2]
    assert apart(boxes, most=1).tolist() == [0]
    assert apart(boxes[:0], most=1).tolist() == []


def test_anchors_cover_the_picture_from_the_finest_map_to_the_coarsest() -> None:
    anchors = anchors_of(33, 40)
    assert len(anchors) == 2 * (5 * 5 + 3 * 3 + 2 * 2)
    assert anchors[:3].tolist() == [[4, 4, 16], [4, 4, 32], [12, 4, 16]]
    assert anchors[10].tolist() == [4, 12, 16]
    assert anchors[50:52].tolist() == [[8, 8, 64], [8, 8, 128]]
    assert anchors[-1].tolist() == [48, 48, 512]


def test_another_graph_is_refused() -> None:
    boxes, scores, points = nothing(1, 8, 8)
    model = graph(boxes, scores, points, names=("logit", "score", "points"))
    with pytest.raises(ModelError, match=r"other\.onnx is not a graph of RetinaFace: add the weights"):
        RetinaFace(model, source="other.onnx", device="cpu", threads=1)
