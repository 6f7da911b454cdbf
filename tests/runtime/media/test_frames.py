"""Turning pictures upright, and mapping boxes back, in all eight orientations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.media.geometry import Box, Geometry, Orientation

ORIENTATIONS = [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]
orientations = st.sampled_from(ORIENTATIONS)
sides = st.integers(1, 40)
aspects = st.floats(0.25, 4.0)
WIDTH, HEIGHT = 7, 5


def numbered(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a picture whose pixels all differ, as far as uint8 goes: [height, width, 2] holds x and y."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.uint8)


def test_the_eight_orientations_are_eight_different_pictures() -> None:
    turned = {o.apply(numbered(WIDTH, HEIGHT)).tobytes() + bytes([o.transpose]) for o in ORIENTATIONS}
    assert len(turned) == 8


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_a_turned_picture_is_contiguous_and_holds_every_pixel(orientation: Orientation) -> None:
    picture = numbered(WIDTH, HEIGHT)
    turned = orientation.apply(picture)
    assert turned.flags.c_contiguous
    assert sorted(map(bytes, turned.reshape(-1, 2))) == sorted(map(bytes, picture.reshape(-1, 2)))


@given(orientations, sides, sides)
def test_the_upright_size_is_that_of_the_turned_picture(orientation: Orientation, width: int, height: int) -> None:
    geometry = Geometry(width, height, orientation=orientation)
    assert orientation.apply(numbered(width, height)).shape[:2] == (geometry.height, geometry.width)


@given(orientations, sides, sides, st.data())
def test_turning_what_a_coded_box_holds_gives_what_the_upright_box_holds(
    orientation: Orientation, width: int, height: int, data: st.DataObject
) -> None:
    geometry = Geometry(width, height, orientation=orientation)
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, geometry.width)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, geometry.height)] * 2)))
    picture = numbered(width, height)
    upright = orientation.apply(picture)[y0:y1, x0:x1]
    left, top, right, bottom = map(round, geometry.coded_box((x0, y0, x1, y1)))
    assert np.array_equal(orientation.apply(picture[top:bottom, left:right]), upright)


@given(orientations, sides, sides, aspects)
def test_the_whole_upright_picture_is_the_whole_coded_picture(
    orientation: Orientation, width: int, height: int, aspect: float
) -> None:
    geometry = Geometry(width, height, aspect, orientation)
    assert geometry.coded_box((0, 0, geometry.width, geometry.height)) == pytest.approx((0, 0, width, height))


@given(orientations, aspects, st.tuples(*[st.floats(-1e4, 1e4)] * 4))
def test_a_box_keeps_its_share_of_the_picture(
    orientation: Orientation, aspect: float, corners: tuple[float, float, float, float]
) -> None:
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    geometry = Geometry(640, 360, aspect, orientation)
    left, top, right, bottom = geometry.coded_box((x0, y0, x1, y1))
    assert left <= right
    assert top <= bottom
    shares = [(x1 - x0) / geometry.width, (y1 - y0) / geometry.height]
    coded = [(right - left) / 640, (bottom - top) / 360]
    assert coded == pytest.approx(shares[::-1] if orientation.transpose else shares, abs=1e-6)


@pytest.mark.parametrize(
    ("aspect", "size"), [(1.0, (720, 576)), (16 / 11, (1047, 576)), (0.5, (360, 576)), (1e-6, (1, 576))]
)
def test_pixels_that_are_not_square_change_the_width_only(aspect: float, size: tuple[int, int]) -> None:
    geometry = Geometry(720, 576, aspect)
    turned = Geometry(720, 576, aspect, Orientation(transpose=True))
    assert (geometry.width, geometry.height) == size
    assert (turned.height, turned.width) == size


@pytest.mark.parametrize(
    ("orientation", "coded"),
    [
        (Orientation(), (1, 2, 3, 5)),
        (Orientation(flip_x=True), (97, 2, 99, 5)),
        (Orientation(flip_y=True), (1, 45, 3, 48)),
        (Orientation(transpose=True), (2, 1, 5, 3)),
        (Orientation(transpose=True, flip_x=True), (2, 47, 5, 49)),
        (Orientation(transpose=True, flip_y=True), (95, 1, 98, 3)),
    ],
    ids=str,
)
def test_boxes_by_hand(orientation: Orientation, coded: Box) -> None:
    assert Geometry(100, 50, orientation=orientation).coded_box((1, 2, 3, 5)) == pytest.approx(coded)
