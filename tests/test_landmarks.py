"""The arithmetic of the benchmark that compares the face detector's points with dlib's; dlib itself is not needed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.landmarks import (
    Face,
    caddm_points,
    deepfakebench_points,
    departure,
    overlap,
    quantile,
    target_for,
    weights_of,
)
from deepscan.runtime.faces.alignment import moved, similarity
from tests.models.goldens import FOLDER

CADDM = np.load(FOLDER / "preprocessing" / "caddm_crop.npz")
PLACES = np.array([[70.0, 95.0], [150.0, 92.0], [112.0, 140.0], [80.0, 180.0], [145.0, 178.0]])


def similar(angle: float, scale: float, shift: tuple[float, float]) -> NDArray[np.float64]:
    """Return the matrix that turns clockwise, scales and moves."""
    turn = scale * np.exp(1j * angle)
    return np.array([[turn.real, -turn.imag, shift[0]], [turn.imag, turn.real, shift[1]]])


def face(points: NDArray[np.float64], *, file: int = 0) -> Face:
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return Face(file, np.tile(points, (14, 1))[:68], box, points, box)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("count", [68, 81])
def test_the_points_of_caddm_are_the_authors(number: int, count: int) -> None:
    points = caddm_points(CADDM[f"landmarks81_{number}"][:count])
    np.testing.assert_array_equal(points, CADDM[f"points5_{number}"])


def test_caddm_cuts_the_middle_of_an_eye_to_whole_pixels() -> None:
    landmarks = np.zeros((68, 2))
    landmarks[36:42] = [[10, 20]] * 5 + [[15, 25]]  # mean 10.83, 20.83
    landmarks[42:48] = 7.5
    assert caddm_points(landmarks)[:2].tolist() == [[10, 20], [7, 7]]


def test_the_points_of_deepfakebench_lie_on_lids_and_lips() -> None:
    landmarks = np.stack([np.arange(81), np.arange(81) + 100], axis=1)
    assert deepfakebench_points(landmarks)[:, 0].tolist() == [37, 44, 30, 49, 55]
    assert deepfakebench_points(landmarks)[0, 1] == 137


def test_every_file_counts_alike() -> None:
    weights = weights_of([face(PLACES, file=file) for file in (3, 3, 3, 8)])
    assert weights == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_points_that_always_lie_in_the_same_places_give_these_as_target() -> None:
    authors = [similar(0.3, 1.2, (5, -9)), similar(-0.2, 0.4, (-30, 8)), similar(0.0, 2.0, (0, 0))]
    inverse = [np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2] for matrix in authors]
    faces = [face(moved(matrix, PLACES), file=number % 2) for number, matrix in enumerate(inverse)]
    target = target_for(faces, authors)
    np.testing.assert_allclose(target, PLACES, atol=1e-9)
    for seen, matrix in zip(faces, authors, strict=True):
        same = departure(seen, matrix, similarity(seen.points, target), 224)
        assert same == pytest.approx((1, 0, 0, 0, 0, 0), abs=1e-9)


def test_scattered_points_give_crops_that_are_right_on_average() -> None:
    rng = np.random.default_rng(0)
    faces = [face(PLACES + rng.normal(0, 15, (5, 2)), file=number) for number in range(200)]
    authors = [similar(0.0, 1.0, (0, 0))] * len(faces)
    target = target_for(faces, authors)
    changes = [similarity(seen.points, target) for seen in faces]
    np.testing.assert_allclose(np.mean(changes, axis=0), [[1, 0, 0], [0, 1, 0]], atol=1e-9)
    plain = np.mean([similarity(seen.points, np.mean([s.points for s in faces], axis=0)) for seen in faces], axis=0)
    assert plain[0, 0] < 0.97  # the mean of the points alone would show faces smaller


def test_a_crop_that_is_larger_turned_and_moved_is_described_so() -> None:
    authors = similar(0.1, 0.5, (20, 30))
    middle = (224 - 1) / 2
    extra = similar(np.radians(10), 1.25, (0, 0))
    extra[:, 2] = [middle + 3, middle - 4] - extra[:, :2] @ [middle, middle]
    ours = np.column_stack([extra[:, :2] @ authors[:, :2], extra[:, :2] @ authors[:, 2] + extra[:, 2]])
    seen = face(moved(np.linalg.inv(np.vstack([authors, [0, 0, 1]]))[:2], np.full((5, 2), middle)))
    scale, roll, right, down, corners, marks = departure(seen, authors, ours, 224)
    assert (scale, roll, right, down) == pytest.approx((1.25, 10, 3, -4))
    assert marks == pytest.approx(5)
    corner = np.array([[0.0, 0.0], [223, 0], [0, 223], [223, 223]])
    assert corners == pytest.approx(np.linalg.norm(moved(extra, corner) - corner, axis=1).mean())


def test_overlap_is_intersection_over_union() -> None:
    assert overlap(np.array([0, 0, 4, 2]), np.array([2, 0, 6, 4])) == pytest.approx(4 / (8 + 16 - 4))
    assert overlap(np.array([0, 0, 1, 1]), np.array([2, 2, 3, 3])) == 0


def test_quantiles_go_by_weight() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.3, 0.2])
    assert [quantile(values, weights, share) for share in (0.1, 0.45, 0.9)] == [1, 2, 3]
