from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.runtime.faces.quality import (
    BLOCK,
    MEASURED,
    SHARPNESS_SIDE,
    MeasuredTrack,
    blockiness,
    means_of,
    measures,
    sharpness,
)
from deepscan.runtime.media.frames import Frame
from deepscan.runtime.media.geometry import Geometry, Orientation
from deepscan.runtime.media.open_input import open_input
from tests.footage import ASTRONAUT, example_frames


def face(seed: int = 0) -> NDArray[np.uint8]:
    """Return the luma of a real face with its surroundings, moved by some pixels."""
    picture = cv2.cvtColor(example_frames(ASTRONAUT, 1)[0], cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(picture[seed % 5 :, seed % 7 :])


@cache
def first_frame() -> Frame:
    with open_input(str(ASTRONAUT), threads=1) as reader:
        return next(reader.frames())


@given(seed=st.integers(0, 34), sigma=st.floats(1.5, 8), side=st.sampled_from([100, 128, 224, 350]))
def test_blur_lowers_sharpness(seed: int, sigma: float, side: int) -> None:
    sharp = cv2.resize(face(seed), (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    blurred = cv2.GaussianBlur(sharp, (0, 0), sigma * side / SHARPNESS_SIDE).astype(np.uint8)
    assert 0 < sharpness(blurred) < sharpness(sharp) < 1


@given(contrast=st.floats(0.5, 1.0), brightness=st.integers(0, 60))
def test_sharpness_does_not_follow_contrast_or_brightness(contrast: float, brightness: int) -> None:
    other = np.clip(face() * contrast + brightness, 0, 255).astype(np.uint8)
    assert sharpness(other) == pytest.approx(sharpness(face()), abs=0.03)


@given(
    left=st.integers(0, 20),
    top=st.integers(0, 20),
    coarse=st.floats(1.5, 12),
)
def test_blocks_are_found_wherever_the_face_begins(left: int, top: int, coarse: float) -> None:
    picture = face()
    height, width = (side // BLOCK * BLOCK for side in picture.shape)
    blocks = picture[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).astype(np.float32)
    means = blocks.mean(axis=(1, 3), keepdims=True)
    flattened = (means + (blocks - means) / coarse).reshape(height, width).astype(np.uint8)
    before = blockiness(picture[top:, left:], left=left, top=top)
    assert before == pytest.approx(1, abs=0.1)
    assert blockiness(flattened[top:, left:], left=left, top=top) > before + 0.1


@given(height=st.integers(1, 40), width=st.integers(1, 40), level=st.integers(0, 255))
def test_faces_of_any_size_and_without_content_have_measures(height: int, width: int, level: int) -> None:
    flat = np.full((height, width), level, np.uint8)
    assert sharpness(flat) == 0
    assert blockiness(flat, left=3, top=5) == 1
    noise = np.random.default_rng(level).integers(0, 256, (height, width)).astype(np.uint8)
    assert 0 <= sharpness(noise) <= 1
    assert np.isfinite(blockiness(noise, left=0, top=0))


@given(
    x=st.floats(-500, 2000),
    y=st.floats(-500, 2000),
    width=st.floats(0.1, 900),
    height=st.floats(0.1, 900),
    transpose=st.booleans(),
)
def test_boxes_may_lie_anywhere(x: float, y: float, width: float, height: float, transpose: bool) -> None:
    found = measures(turned(first_frame(), transpose=transpose), (x, y, x + width, y + height))
    assert found.face_pixels == pytest.approx(max(width, height))
    assert 0 <= found.sharpness <= 1


def turned(frame: Frame, *, transpose: bool) -> Frame:
    old = frame.geometry
    return replace(frame, geometry=Geometry(old.coded_width, old.coded_height, orientation=Orientation(transpose)))


@given(count=st.integers(1, 300))
def test_few_crops_of_a_track_are_measured_evenly_over_it(count: int) -> None:
    frame, track = first_frame(), MeasuredTrack()
    for number in range(count):
        track.see(frame, (0.0, 0.0, 10.0 + number, 10.0))
    sides = [each.face_pixels - 10 for each in track.kept]
    steps = set(np.diff(sides))
    assert min(count, MEASURED // 2) <= len(sides) <= MEASURED
    assert sides[0] == 0
    assert len(steps) <= 1
    assert sides[-1] + (steps.pop() if steps else 1) >= count
    assert means_of({4: track, 5: MeasuredTrack()})[4].face_pixels == pytest.approx(np.mean(sides) + 10)
    assert 5 not in means_of({4: track, 5: MeasuredTrack()})
