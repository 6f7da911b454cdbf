"""Color: numbers of the standards, and one picture in many encodings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepscan.runtime.media.color import BT601, BT709, IDENTITY, LUMA_WEIGHTS, Color, declared_color
from tests.footage import open_video, portrait, write_video
from tests.runtime.host_crops import crop_rgb

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
# Color bars in limited range, as everybody's test pictures hold them, rounded to 8 bits.
BARS = [
    (5, RED, (81, 90, 240)),
    (5, GREEN, (145, 54, 34)),
    (6, BLUE, (41, 240, 110)),
    (1, RED, (63, 102, 240)),
    (1, GREEN, (173, 42, 26)),
    (1, BLUE, (32, 240, 118)),
    (9, RED, (74, 97, 240)),
    (9, GREEN, (164, 47, 25)),
    (9, BLUE, (29, 240, 119)),
    *((matrix, WHITE, (235, 128, 128)) for matrix in LUMA_WEIGHTS),
    *((matrix, BLACK, (16, 128, 128)) for matrix in LUMA_WEIGHTS),
]


def rgb(color: Color, samples: tuple[float, float, float]) -> list[float]:
    return list(map(float, color.rgb_matrix() @ np.array([*samples, 1.0])))


@pytest.mark.parametrize(("matrix", "expected", "samples"), BARS)
def test_color_bars_in_limited_range_have_their_colors(
    matrix: int, expected: tuple[int, int, int], samples: tuple[int, int, int]
) -> None:
    assert rgb(Color(matrix, full_range=False), samples) == pytest.approx(expected, abs=2)


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_gray_in_full_range_is_its_luma(matrix: int, level: int) -> None:
    assert rgb(Color(matrix, full_range=True), (level, 128, 128)) == pytest.approx([level] * 3, abs=1e-3)


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("color", [RED, GREEN, BLUE, WHITE, BLACK, (128, 128, 128), (200, 60, 90)], ids=str)
def test_encoding_by_the_standard_and_decoding_gives_the_color_back(
    matrix: int, full_range: bool, color: tuple[int, int, int]
) -> None:
    red, green, blue = (number / 255 for number in color)
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if full_range:
        samples = (255 * luma, 255 * cb + 128, 255 * cr + 128)
    else:
        samples = (219 * luma + 16, 224 * cb + 128, 224 * cr + 128)
    assert rgb(Color(matrix, full_range), samples) == pytest.approx(color, abs=1e-3)


def test_the_identity_matrix_puts_green_blue_and_red_in_order_exactly() -> None:
    full = Color(IDENTITY, full_range=True)
    assert rgb(full, (200, 60, 90)) == [90, 200, 60]
    levels = np.arange(256)
    planes = np.stack([levels, levels[::-1], levels // 2, np.ones(256)])
    assert np.array_equal(full.rgb_matrix() @ planes, planes[[2, 0, 1]])


def test_the_identity_matrix_in_limited_range_stretches_every_channel() -> None:
    limited = Color(IDENTITY, full_range=False)
    assert rgb(limited, (235, 16, 125.5)) == pytest.approx([127.5, 255, 0], abs=1e-3)


@pytest.mark.parametrize("matrix", [IDENTITY, 2, 3, 8, 11, 12, 99])
@pytest.mark.parametrize(
    ("width", "height", "guess"),
    [
        (640, 480, BT601),
        (720, 576, BT601),
        (480, 360, BT601),
        (1280, 720, BT709),
        (1280, 544, BT709),
        (720, 1280, BT709),
        (1920, 1080, BT709),
    ],
)
def test_an_unknown_matrix_is_guessed_from_the_size(matrix: int, width: int, height: int, guess: int) -> None:
    color = declared_color(matrix=matrix, full_range=False, width=width, height=height)
    assert color == Color(guess, full_range=False)


@pytest.mark.parametrize("matrix", LUMA_WEIGHTS)
def test_a_declared_matrix_is_believed_at_any_size(matrix: int) -> None:
    for size in (64, 4096):
        assert declared_color(matrix=matrix, full_range=True, width=size, height=size) == Color(matrix, True)


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("codec", "pixel_format", "options"),
    [
        ("ffv1", "yuv444p", {}),
        ("ffv1", "yuv420p", {}),
        ("ffv1", "yuv420p10le", {}),
        ("ffv1", "yuv444p16le", {}),
        ("libx264", "yuv422p", {"qp": "1"}),
        ("libx265", "yuv420p10le", {"x265-params": "log-level=none:qp=1:bframes=0"}),
    ],
)
def test_a_face_looks_the_same_in_every_encoding(
    tmp_path: Path, matrix: int, full_range: bool, codec: str, pixel_format: str, options: dict[str, str]
) -> None:
    picture = portrait(160, 96)
    path = write_video(
        tmp_path / "video.mkv",
        [picture],
        codec=codec,
        pixel_format=pixel_format,
        matrix=matrix,
        full_range=full_range,
        options=options,
    )
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        crop = crop_rgb(frame, (40, 8, 120, 88), 80).astype(int)
        small = reader.shrink(frame, 160)[8:88, 40:120, ::-1].astype(int)
    declared = frame.picture.color
    assert (LUMA_WEIGHTS[declared.matrix], declared.full_range) == (LUMA_WEIGHTS[matrix], full_range)
    difference = np.abs(crop - picture[8:88, 40:120])
    assert difference.mean() < (1.5 if "444" in pixel_format else 3)  # A wrong range alone makes ten.
    assert np.abs(np.mean(crop - picture[8:88, 40:120], axis=(0, 1))).max() < 1.5
    assert np.abs(np.mean(small - picture[8:88, 40:120], axis=(0, 1))).max() < 2
