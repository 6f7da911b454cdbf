"""Similarity transforms and boxes against least squares by numpy, and their properties."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.landmarks import caddm_target, deepfakebench_target
from deepscan.models.ftcn import TARGET as VIDEO_TARGET
from deepscan.models.registry import BUILTIN
from deepscan.runtime.faces.alignment import (
    clip_similarity,
    enlarged_box,
    moved,
    shifted,
    similarity,
    source_box,
    target_landmarks,
)
from deepscan.runtime.media.geometry import Box
from deepscan.spec import ClipCrop, SimilarityCrop

SIZE = 224
CROPS = {name: detector.spec.crop for name, detector in BUILTIN.items()}
ALIGNED = {name: crop for name, crop in CROPS.items() if isinstance(crop, (ClipCrop, SimilarityCrop))}
TARGETS = [target_landmarks(target, SIZE) for target in (VIDEO_TARGET, caddm_target(), deepfakebench_target())]
MIRROR = np.array([-1.0, 1.0])
coordinates = st.floats(-500, 500)
points = st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5).map(np.array)
targets = st.sampled_from(TARGETS)
degrees = st.floats(-180, 180)
scales = st.floats(0.05, 20)
shifts = st.floats(-2000, 2000)


def turned(degree: float, scale: float, x: float, y: float) -> NDArray[np.float64]:
    """Return the matrix [2, 3] that turns, scales, then moves."""
    angle = np.deg2rad(degree)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, [x, y]])


def least_squares(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve for the similarity as a plain linear system: x' = a x + b y + s, y' = a y - b x + t."""
    one, zero = np.ones(len(source)), np.zeros(len(source))
    x, y = source.T
    rows = np.concatenate([np.column_stack([x, y, one, zero]), np.column_stack([y, -x, zero, one])])
    a, b, s, t = np.linalg.lstsq(rows, target.T.reshape(-1), rcond=None)[0]
    return np.array([[a, b, s], [-b, a, t]])


def inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]


def spread(values: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(values - values.mean(axis=0)))


@given(points, targets)
def test_the_similarity_is_the_optimum(source: NDArray[np.float64], target: NDArray[np.float64]) -> None:
    assume(spread(source) > 1)
    matrix = least_squares(source, target)
    assume(np.linalg.det(matrix[:, :2]) > 1e-6)
    np.testing.assert_allclose(similarity(source, target), matrix, rtol=1e-6, atol=1e-6)


@given(targets, degrees, scales, shifts, shifts)
def test_a_known_similarity_is_recovered(
    target: NDArray[np.float64], degree: float, scale: float, x: float, y: float
) -> None:
    known = turned(degree, scale, x, y)
    source = moved(inverse(known), target)
    np.testing.assert_allclose(similarity(source, target), known, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(clip_similarity(source, target), known, rtol=1e-7, atol=1e-6)


@given(points, targets)
@example(np.zeros((5, 2)), TARGETS[0])  # all in one place
@example(np.full((5, 2), 1e-9) * [[1], [2], [3], [4], [5]], TARGETS[0])
@example(np.arange(5.0)[:, None] * [[1.0, 2.0]], TARGETS[0])  # on a line
@example(TARGETS[0] * MIRROR, TARGETS[0])  # a mirrored face
@example(TARGETS[0] * 1e-4, TARGETS[0])
@example(TARGETS[0] * 1e5, TARGETS[0])
def test_for_any_landmarks_the_matrix_is_a_finite_similarity_without_reflection(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> None:
    matrix = similarity(source, target)
    assert np.isfinite(matrix).all()
    assert matrix[0, 0] == matrix[1, 1]
    assert matrix[0, 1] == -matrix[1, 0]
    assert np.linalg.det(matrix[:, :2]) > 0
    # The middle of the points always comes to lie on the middle of the target.
    np.testing.assert_allclose(
        moved(matrix, source.mean(axis=0, keepdims=True))[0], target.mean(axis=0), atol=1e-6, rtol=1e-6
    )
    assert np.isfinite(clip_similarity(source, target)).all()


def test_landmarks_in_one_place_are_moved_and_not_scaled() -> None:
    source = np.full((5, 2), 33.0)
    expected = np.column_stack([np.eye(2), TARGETS[0].mean(axis=0) - 33])
    np.testing.assert_allclose(similarity(source, TARGETS[0]), expected)
    np.testing.assert_allclose(clip_similarity(source, TARGETS[0]), expected)


def both_candidates(source: NDArray[np.float64], target: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the plain and the mirrored answer of the authors: fitted from the target to the picture, then inverted."""
    mirrored = inverse(least_squares(target * MIRROR, source))
    return [inverse(least_squares(target, source)), mirrored * MIRROR[:, None]]


@given(
    st.lists(points, min_size=1, max_size=3),
    targets,
    degrees,
    st.floats(0.3, 5),
    st.floats(-1, 1),
    st.floats(0.0, 10),
)
def test_the_similarity_of_a_clip_follows_the_rule_of_the_authors(
    noises: list[NDArray[np.float64]],
    target: NDArray[np.float64],
    degree: float,
    scale: float,
    narrowed: float,
    noise: float,
) -> None:
    """`narrowed` makes faces seen from the side (0) and mirrored ones (-1)."""
    face = moved(turned(degree, scale, 300, 200), (target - target.mean(axis=0)) * [narrowed, 1])
    source = np.concatenate([face + noise * each / 500 for each in noises])
    tiled = np.tile(target, (len(noises), 1))
    plain, mirrored = both_candidates(source, tiled)
    off = [np.linalg.norm(moved(matrix, source) - tiled * MIRROR) for matrix in (plain, mirrored)]
    assume(abs(off[0] - off[1]) > 1e-6)
    assume(all(np.abs(matrix[:, :2]).max() < 1e3 for matrix in (plain, mirrored)))
    expected = plain if off[0] < off[1] else mirrored
    np.testing.assert_allclose(clip_similarity(source, tiled), expected, rtol=1e-5, atol=1e-4)


@given(targets, degrees, scales, shifts, shifts, points)
def test_a_clip_is_fitted_in_the_picture_and_a_frame_in_the_crop(
    target: NDArray[np.float64], degree: float, scale: float, x: float, y: float, noise: NDArray[np.float64]
) -> None:
    """With points off their places the two differ: the fit in the crop is the smaller of the two."""
    source = moved(inverse(turned(degree, scale, x, y)), target + noise / 50)
    of_clip, of_frame = clip_similarity(source, target), similarity(source, target)
    np.testing.assert_allclose(of_clip, inverse(least_squares(target, source)), rtol=1e-5, atol=1e-4)
    assert np.linalg.det(of_frame[:, :2]) <= np.linalg.det(of_clip[:, :2]) * (1 + 1e-9)


@given(degrees, scales, shifts, shifts, shifts, shifts, points)
def test_a_shifted_matrix_does_the_same_to_a_part_of_the_picture(
    degree: float, scale: float, x: float, y: float, left: float, top: float, places: NDArray[np.float64]
) -> None:
    matrix = turned(degree, scale, x, y)
    np.testing.assert_allclose(
        moved(shifted(matrix, left, top), places - [left, top]), moved(matrix, places), rtol=1e-7, atol=1e-6
    )


@given(degrees, scales, shifts, shifts, st.integers(1, 40), st.integers(1, 300), st.integers(1, 300))
def test_a_source_box_holds_all_that_the_crop_is_made_of_and_little_more(
    degree: float, scale: float, x: float, y: float, size: int, width: int, height: int
) -> None:
    matrix = turned(degree, scale, x, y)
    x0, y0, x1, y1 = source_box(matrix, size, width, height)
    assert 0 <= x0 <= width
    assert 0 <= x1 <= width
    assert 0 <= y0 <= height
    assert 0 <= y1 <= height
    down, across = np.mgrid[:size, :size]
    reached = moved(inverse(matrix), np.column_stack([across.ravel(), down.ravel()]).astype(float))
    low, high = np.floor(reached + 1e-6), np.floor(reached - 1e-6) + 1  # the neighbors of each place
    seen = ((high >= 0) & (low <= [width - 1, height - 1])).all(axis=1)
    if not seen.any():
        return
    assert (low[seen].clip(0) >= [x0, y0]).all()
    assert (high[seen].clip(None, [width - 1, height - 1]) < [x1, y1]).all()
    corners = reached.min(axis=0) - 3, reached.max(axis=0) + 4
    assert ([x0, y0] >= corners[0].clip(0)).all()
    assert ([x1, y1] <= corners[1].clip(None, [width, height])).all()


@pytest.mark.parametrize("shift", [(1000, 0), (-1000, 0), (0, 1000), (0, -1000)], ids=str)
def test_a_crop_outside_the_picture_has_an_empty_source_box(shift: tuple[int, int]) -> None:
    x0, y0, x1, y1 = source_box(np.column_stack([np.eye(2), shift]), 32, 100, 80)
    assert x0 >= x1 or y0 >= y1


boxes = st.tuples(st.floats(-300, 900), st.floats(-300, 900), st.floats(0, 600), st.floats(0, 600)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(boxes, st.integers(1, 700), st.integers(1, 700), st.floats(0, 2))
def test_an_enlarged_box_stays_in_the_picture_and_holds_the_face_that_does(
    box: Box, width: int, height: int, reach: float
) -> None:
    enlarged = enlarged_box(box, width, height, reach=reach)
    assert all(isinstance(value, int) for value in enlarged)
    x0, y0, x1, y1 = enlarged
    assert 0 <= x0 <= x1 <= width - 1
    assert 0 <= y0 <= y1 <= height - 1
    assert x0 <= max(0, min(round(box[0]), width - 1))
    assert y0 <= max(0, min(round(box[1]), height - 1))
    assert x1 >= max(0, min(round(box[2]), width - 1))
    assert y1 >= max(0, min(round(box[3]), height - 1))


@given(boxes, st.floats(0, 2))
def test_where_there_is_room_an_enlarged_box_grows_by_its_reach_on_each_side(box: Box, reach: float) -> None:
    room = 3000
    moved_box: Box = (box[0] + room, box[1] + room, box[2] + room, box[3] + room)
    x0, y0, x1, y1 = map(round, moved_box)
    enlarged = enlarged_box(moved_box, 3 * room, 3 * room, reach=reach)
    expected = [
        x0 - reach * (x1 - x0),
        y0 - reach * (y1 - y0),
        x1 + reach * (x1 - x0),
        y1 + reach * (y1 - y0),
    ]
    assert enlarged == pytest.approx(expected, abs=0.5)


def test_boxes_are_rounded_half_to_even_before_and_after() -> None:
    assert enlarged_box((100.5, 101.5, 103.5, 104.6), 999, 999, reach=0.5) == (98, 100, 106, 106)


@pytest.mark.parametrize("crop", ALIGNED.values(), ids=ALIGNED.keys())
def test_every_spec_places_the_landmarks_as_a_face_has_them(crop: ClipCrop | SimilarityCrop) -> None:
    """Eyes above the nose above the mouth, left of right, all inside the crop."""
    left_eye, right_eye, nose, left_mouth, right_mouth = target_landmarks(crop.target, 1)
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert all(0 < value < 1 for place in crop.target for value in place)


def test_the_crops_pixels_are_counted_as_opencv_does() -> None:
    """The middle of the first pixel is (0, 0): what lies on the target pixel before lies on it in the crop."""
    picture = np.zeros((60, 80), dtype=np.uint8)
    picture[20, 30] = 255
    matrix = similarity(np.array([[30.0, 20], [40, 20], [30, 30]]), np.array([[5.0, 6], [15, 6], [5, 16]]))
    assert np.argwhere(cv2.warpAffine(picture, matrix, (32, 32)) == 255).tolist() == [[6, 5]]
