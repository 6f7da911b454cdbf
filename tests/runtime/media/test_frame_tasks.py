"""Signatures of pictures, and the cuts between them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deepscan.runtime.media.color import BT709, Color
from deepscan.runtime.media.frame_tasks import is_shot_boundary, luma_signature
from deepscan.runtime.media.frames import Picture
from tests.footage import NO_FACE, TWO_FACES, flat, open_video, portrait, write_video


def picture_of(luma: NDArray[Any], bit_depth: int = 8) -> Picture:
    return Picture((luma,), bit_depth, Color(BT709, full_range=True), left_chroma=True)


def signature(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    return luma_signature(picture_of(luma))


def face(width: int = 320, height: int = 180) -> NDArray[np.uint8]:
    return np.asarray(portrait(width, height)[..., 1])


@pytest.mark.parametrize("bit_depth", [8, 10, 12])
@pytest.mark.parametrize("shape", [(360, 640), (49, 65), (5, 7), (1, 1)], ids=str)
@pytest.mark.parametrize("level", [0, 16, 200, 255])
def test_a_flat_picture_has_its_luma_everywhere(shape: tuple[int, int], bit_depth: int, level: int) -> None:
    luma = np.full(shape, level << (bit_depth - 8), dtype=np.uint8 if bit_depth == 8 else np.uint16)
    found = luma_signature(picture_of(luma, bit_depth))
    assert found.dtype == np.float32
    assert found.shape == (16, 16)
    assert (found == level).all()


def test_every_block_holds_the_mean_of_its_part_of_the_picture() -> None:
    blocks = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(signature(np.kron(blocks, np.ones((24, 40), dtype=np.uint8))), blocks)


def test_the_signature_hardly_depends_on_the_size() -> None:
    assert np.abs(signature(face(320, 180)) - signature(face(640, 360))).mean() < 5


def test_another_picture_is_a_cut() -> None:
    with open_video(str(NO_FACE), threads=1) as reader:
        other = luma_signature(next(reader.frames()).picture)
    dark = signature(np.full((180, 320), 20, dtype=np.uint8))
    assert is_shot_boundary(signature(face()), other)
    assert is_shot_boundary(other, signature(face()))
    assert is_shot_boundary(signature(face()), dark)


@pytest.mark.parametrize("pixels", [1, 3, 6])
def test_a_pan_is_no_cut(pixels: int) -> None:
    assert not is_shot_boundary(signature(face()), signature(np.roll(face(), pixels, axis=1)))


@pytest.mark.parametrize("levels", [-20, -5, 5, 20])
def test_changing_light_is_no_cut(levels: int) -> None:
    drifted = (face().astype(int) + levels).clip(0, 255).astype(np.uint8)
    assert not is_shot_boundary(signature(face()), signature(drifted))


def test_noise_is_no_cut() -> None:
    noise = np.random.default_rng(0).normal(0, 20, size=face().shape)
    assert not is_shot_boundary(signature(face()), signature((face() + noise).clip(0, 255).astype(np.uint8)))


def test_the_same_picture_is_no_cut() -> None:
    assert not is_shot_boundary(signature(face()), signature(face()))


def test_a_video_is_cut_where_it_was_joined_and_nowhere_else(tmp_path: Path) -> None:
    still, dark = portrait(160, 96), flat((20, 30, 25), 160, 96)
    path = write_video(tmp_path / "video.mp4", [np.roll(still, n, axis=1) for n in range(6)] + [dark] * 5 + [still] * 4)
    with open_video(str(path), threads=1) as reader:
        found = [luma_signature(frame.picture) for frame in reader.frames()]
    assert [n for n in range(1, len(found)) if is_shot_boundary(found[n - 1], found[n])] == [6, 11]


def test_people_who_move_make_no_cut() -> None:
    with open_video(str(TWO_FACES), threads=1) as reader:
        found = [luma_signature(frame.picture) for frame in reader.frames()]
    assert len(found) > 20
    assert not any(is_shot_boundary(before, after) for before, after in pairwise(found))
