"""Crops against an independent oracle, at the border, between pixels, and for any box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from deepscan.runtime.faces.crops import crop_square
from deepscan.runtime.media.color import BT709, Color
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Box, Geometry, Orientation
from deepscan.spec import SquareCrop
from tests.footage import open_video, portrait, whole_rgb, write_video
from tests.runtime.host_crops import crop_rgb

FULL = Color(BT709, full_range=True)
WIDTH, HEIGHT = 160, 96


def frame_of(
    *planes: NDArray[Any],
    bit_depth: int = 8,
    color: Color = FULL,
    left_chroma: bool = True,
    orientation: Orientation = Orientation(),  # noqa: B008
) -> Frame:
    """Return a frame with these planes, as a reader would make it."""
    height, width = planes[0].shape
    picture = Picture(planes, bit_depth, color, left_chroma)
    return Frame(0, 0.0, picture, Geometry(width, height, orientation=orientation), None)


def ramp(width: int, height: int, slope: float, offset: float = 20.0) -> NDArray[np.uint8]:
    """Return a plane that rises from left to right: `offset` + `slope` * x at the pixels' middles."""
    return np.tile((offset + slope * np.arange(width)).astype(np.uint8), (height, 1))


@pytest.mark.parametrize(
    ("box", "scale", "shift_down", "square"),
    [
        ((10, 20, 30, 60), 1.0, 0.0, (0, 20, 40, 60)),
        ((10, 20, 50, 40), 1.0, 0.0, (10, 10, 50, 50)),
        ((10, 20, 30, 60), 1.5, 0.0, (-10, 10, 50, 70)),
        ((10, 20, 30, 60), 1.0, 0.1, (0, 24, 40, 64)),
        ((10, 20, 30, 60), 2.0, -0.05, (-20, -4, 60, 76)),
    ],
)
def test_squares_by_hand(box: Box, scale: float, shift_down: float, square: Box) -> None:
    assert crop_square(box, SquareCrop(scale=scale, shift_down=shift_down)) == pytest.approx(square)


FORMATS = [
    ("yuv420p", 1, False, 2.0),
    ("yuv420p", 6, True, 2.0),
    ("yuv422p", 1, False, 1.5),
    ("yuv444p", 9, False, 0.8),
    ("yuv410p", 6, False, 4.0),
    ("yuv440p", 1, True, 2.0),
    ("yuv420p10le", 1, False, 2.0),
    ("yuv444p12le", 1, True, 0.8),
    ("bgr0", 1, True, 0.8),
    ("gray", 1, True, 0.8),
]
BOXES = [(40, 8, 120, 88), (41.3, 9.7, 61.9, 30.3), (50.5, 20.25, 66.5, 36.25), (1, 1, 95, 95)]


@pytest.mark.parametrize(("pixel_format", "matrix", "full_range", "allowed"), FORMATS)
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (WIDTH + 1, HEIGHT + 1)], ids=str)
def test_a_crop_is_what_converting_the_whole_frame_and_resampling_gives(
    tmp_path: Path, size: tuple[int, int], pixel_format: str, matrix: int, full_range: bool, allowed: float
) -> None:
    path = write_video(
        tmp_path / "video.mkv",
        [portrait(*size)],
        codec="ffv1",
        pixel_format=pixel_format,
        matrix=matrix,
        full_range=full_range,
    )
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        whole = whole_rgb(frame)
    for box in BOXES:
        for side in (16, 64, 150):
            expected = Image.fromarray(whole).resize((side, side), Image.Resampling.BILINEAR, box=box)
            difference = np.abs(crop_rgb(frame, box, side).astype(int) - np.asarray(expected))
            assert difference.mean() < allowed, (box, side)


@pytest.mark.parametrize("side", [8, 31, 100, 128])
def test_shrinking_averages_what_it_leaves_out(side: int) -> None:
    y, x = np.mgrid[:256, :256]
    board = ((x + y) % 2 * 255).astype(np.uint8)
    crop = crop_rgb(frame_of(board), (3, 3, 251, 251), side).astype(float)
    assert crop.mean() == pytest.approx(127.5, abs=2)
    assert crop.std() < 5  # one sample for each pixel would leave 127


def test_growing_interpolates() -> None:
    crop = crop_rgb(frame_of(ramp(40, 40, 5)), (10, 10, 20, 20), 100)
    middles = 10 + (np.arange(100) + 0.5) / 10
    np.testing.assert_allclose(crop[50, :, 0], 20 + 5 * (middles - 0.5), atol=1)


@pytest.mark.parametrize("shift", [-0.5, 0.25, 0.5, 0.75, 1.0])
def test_part_of_a_pixel_moves_the_picture_as_much(shift: float) -> None:
    frame = frame_of(ramp(32, 32, 7, 0))
    before = crop_rgb(frame, (8, 8, 24, 24), 16).astype(float)
    after = crop_rgb(frame, (8 + shift, 8, 24 + shift, 24), 16).astype(float)
    np.testing.assert_allclose(after - before, 7 * shift, atol=1)


def test_outside_the_picture_its_border_is_repeated() -> None:
    generator = np.random.default_rng(0)
    planes = [generator.integers(40, 200, size=(48, 64), dtype=np.uint8) for _ in range(3)]
    wide = [np.pad(plane, 40, mode="edge") for plane in planes]
    for x0, y0 in [(-20, 10), (50, 10), (10, -25), (10, 30), (-30, -30), (52, 36), (-38, 44)]:
        inside = crop_rgb(frame_of(*planes), (x0, y0, x0 + 34, y0 + 34), 17)
        padded = crop_rgb(frame_of(*wide), (x0 + 40, y0 + 40, x0 + 74, y0 + 74), 17)
        assert np.array_equal(inside, padded)


@pytest.mark.parametrize(("left_chroma", "across"), [(False, 1), (True, 1), (False, 2), (True, 2), (False, 4)])
def test_chroma_lies_where_the_format_says(left_chroma: bool, across: int) -> None:
    """Cb is a ramp over the luma pixels, sampled where the format puts chroma: the crop must give back the ramp."""
    width, slope = 64, 2.0
    first = 0.5 if left_chroma or across == 1 else across / 2
    places = first + across * np.arange(width // across)
    chroma = np.tile((60 + slope * places).round().astype(np.uint8), (width, 1))
    luma = np.full((width, width), 100, dtype=np.uint8)
    frame = frame_of(luma, chroma, np.full_like(chroma, 128), left_chroma=left_chroma)
    blue = crop_rgb(frame, (8, 8, 56, 56), 48)[24, :, 2].astype(float)
    expected = 100 + 1.8556 * (60 + slope * (8.5 + np.arange(48)) - 128)
    seen = (expected > 5) & (expected < 250)
    np.testing.assert_allclose(blue[seen], expected[seen], atol=1.9)  # A quarter of a chroma sample makes 1.9.
    assert np.mean(blue[seen] - expected[seen]) == pytest.approx(0, abs=0.6)


@pytest.mark.parametrize(
    "orientation", [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)], ids=str
)
def test_a_crop_of_a_turned_video_is_a_crop_of_the_turned_picture(orientation: Orientation) -> None:
    coded = cv2.cvtColor(portrait(96, 64), cv2.COLOR_RGB2GRAY)
    turned = frame_of(np.asarray(coded, dtype=np.uint8), orientation=orientation)
    upright = frame_of(orientation.apply(np.asarray(coded, dtype=np.uint8)))
    box = (7.5, 11.25, 47.5, 51.25)
    difference = crop_rgb(turned, box, 40).astype(int) - crop_rgb(upright, box, 40)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 10, 10),
        (10.5, 10.5, 10.5 + 1e-9, 10.5 + 1e-9),
        (500, 500, 540, 540),
        (-500, -500, -460, -460),
        (500, 10, 540, 50),
        (10, -1e5, 50, -1e5 + 40),
        (63, 47, 65, 49),
        (-1000, -1000, 1000, 1000),
    ],
    ids=str,
)
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_boxes_without_size_or_far_outside_give_a_crop(box: Box, bit_depth: int) -> None:
    luma = np.full((48, 64), 77 << (bit_depth - 8), dtype=np.uint8 if bit_depth == 8 else np.uint16)
    chroma = np.full((24, 32), 128 << (bit_depth - 8), dtype=luma.dtype)
    crop = crop_rgb(frame_of(luma, chroma, chroma, bit_depth=bit_depth), box, 8)
    assert crop.shape == (8, 8, 3)
    assert crop.dtype == np.uint8
    assert (crop == 77).all()


corners = st.floats(-300, 300)
lengths = st.floats(0, 400)


@given(corners, corners, lengths, lengths, st.integers(1, 40), st.sampled_from([8, 10, 12]))
def test_any_box_of_a_flat_picture_has_its_color(
    x0: float, y0: float, width: float, height: float, size: int, bit_depth: int
) -> None:
    kind = np.uint8 if bit_depth == 8 else np.uint16
    planes = [
        np.full(shape, level << (bit_depth - 8), dtype=kind)
        for shape, level in [((33, 51), 120), ((17, 26), 110), ((17, 26), 150)]
    ]
    frame = frame_of(*planes, bit_depth=bit_depth)
    crop = crop_rgb(frame, (x0, y0, x0 + width, y0 + height), size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    expected = FULL.rgb_matrix() @ np.array([120, 110, 150, 1])
    assert np.abs(crop - expected).max() <= 1
