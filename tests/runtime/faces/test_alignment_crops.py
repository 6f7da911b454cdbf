"""Aligned crops from the planes of frames against OpenCV's warp of the whole RGB picture."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from benchmarks.landmarks import caddm_target, deepfakebench_target
from deepscan.models.ftcn import TARGET as VIDEO_TARGET
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.faces.alignment import clip_similarity, enlarged_box, face_region, similarity, target_landmarks
from deepscan.runtime.media.color import BT709, IDENTITY, Color
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Box, Geometry, Orientation
from deepscan.spec import Landmarks
from tests.footage import open_video, portrait, whole_rgb, write_video
from tests.runtime.host_crops import aligned_clip, similarity_crop

WIDTH, HEIGHT = 321, 181  # odd, so that planes of chroma are rounded up
SIZE = 64
TARGET = caddm_target()
ORIENTATIONS = [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]
# Where a face's eyes, nose and mouth are, around its middle, in units of its width.
FACE = np.array([(-0.2, -0.2), (0.2, -0.2), (0.0, 0.05), (-0.16, 0.3), (0.16, 0.3)])
# Middle, width and turn of faces: within the picture, at its borders, half and wholly outside; small and large.
FACES = {
    "middle": (160, 90, 60, 0),
    "turned": (150, 100, 60, 40),
    "upside down": (170, 80, 70, 180),
    "at the left border": (20, 90, 60, 0),
    "in the corner": (310, 175, 60, -20),
    "half outside": (160, -10, 90, 10),
    "outside": (-400, 90, 60, 0),
    "small": (200, 60, 9, 15),
    "larger than the picture": (160, 90, 700, 5),
}


def points_of(x: float, y: float, width: float, turn: float) -> NDArray[np.float32]:
    """Return the five points of a face."""
    angle = np.deg2rad(turn)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points: NDArray[np.float64] = FACE * width @ linear.T + [x, y]
    return points.astype(np.float32)


def box_of(points: NDArray[np.float32]) -> Box:
    x0, y0 = points.min(axis=0).tolist()
    x1, y1 = points.max(axis=0).tolist()
    return x0, y0, x1, y1


def rgb_frame(
    rgb: NDArray[np.uint8],
    *,
    orientation: Orientation = Orientation(),  # noqa: B008
) -> Frame:
    """Return a frame that holds G, B and R as they are."""
    red, green, blue = (np.ascontiguousarray(rgb[..., channel]) for channel in range(3))
    picture = Picture((green, blue, red), 8, Color(IDENTITY, full_range=True), left_chroma=False)
    return Frame(0, 0.0, picture, Geometry(rgb.shape[1], rgb.shape[0], orientation=orientation), None)


def warped(rgb: NDArray[np.uint8], points: NDArray[np.float32], target: Landmarks, size: int) -> NDArray[np.uint8]:
    """Align one face as the authors do: by a warp of the whole picture."""
    matrix = similarity(points.astype(np.float64), target_landmarks(target, size))
    return np.asarray(cv2.warpAffine(rgb, matrix, (size, size)), dtype=np.uint8)


def warped_clip(
    pictures: Iterable[NDArray[np.uint8]], faces: list[NDArray[np.float32]], size: int
) -> NDArray[np.uint8]:
    """Align a clip as the authors do: each enlarged box pasted on a black picture, all of them warped alike."""
    pictures = list(pictures)
    height, width = pictures[0].shape[:2]
    boxes = [enlarged_box(box_of(points), width, height, reach=0.5) for points in faces]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    matrix = clip_similarity(
        np.concatenate(faces).astype(np.float64) - [left, top],
        np.tile(target_landmarks(VIDEO_TARGET, size), (len(faces), 1)),
    )
    clip = []
    for picture, (x0, y0, x1, y1) in zip(pictures, boxes, strict=True):
        canvas = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
        canvas[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
        if canvas.size:  # OpenCV warps no picture without pixels
            clip.append(np.asarray(cv2.warpAffine(canvas, matrix, (size, size)), dtype=np.uint8))
        else:
            clip.append(np.zeros((size, size, 3), dtype=np.uint8))
    return np.stack(clip)


def difference(got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    assert got.shape == expected.shape
    assert got.dtype == np.uint8
    return float(np.abs(got.astype(int) - expected.astype(int)).mean())


def decoded(path: Path, *, stretched_to: tuple[int, int] | None = None) -> tuple[Frame, NDArray[np.uint8]]:
    """Return the first frame of a video, and its upright picture in RGB as FFmpeg converts it."""
    with open_video(str(path), threads=1) as reader:
        frame = next(reader.frames())
        whole = whole_rgb(frame)
    if stretched_to:
        whole = np.asarray(Image.fromarray(whole).resize(stretched_to, Image.Resampling.BILINEAR))
    return frame, frame.geometry.orientation.apply(whole)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return portrait(WIDTH, HEIGHT)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("target", [caddm_target(), deepfakebench_target()], ids=["caddm", "deepfakebench"])
def test_a_crop_is_the_warp_of_the_whole_picture(picture: NDArray[np.uint8], face: str, target: Landmarks) -> None:
    points = points_of(*FACES[face])
    crop = similarity_crop(rgb_frame(picture), points, target, SIZE)
    expected = warped(picture, points, target, SIZE)
    assert np.abs(crop.astype(int) - expected).max() <= 4  # OpenCV's places are rounded to 1/32 of a pixel
    assert difference(crop, expected) < 0.2
    assert bool(expected.max()) == (face != "outside")


FORMATS = [
    ("yuv420p", 1, False, 2.0),
    ("yuv422p", 6, True, 1.5),
    ("yuv444p", 9, False, 0.8),
    ("yuv420p10le", 1, False, 2.0),
    ("bgr0", 1, True, 0.8),
    ("gray", 1, True, 0.8),
]


@pytest.mark.parametrize(("pixel_format", "matrix", "full_range", "allowed"), FORMATS)
def test_crops_from_planes_are_those_of_the_converted_picture(
    tmp_path: Path, picture: NDArray[np.uint8], pixel_format: str, matrix: int, full_range: bool, allowed: float
) -> None:
    frame, whole = decoded(
        write_video(
            tmp_path / "video.mkv",
            [picture],
            codec="ffv1",
            pixel_format=pixel_format,
            matrix=matrix,
            full_range=full_range,
        )
    )
    for face, place in FACES.items():
        points = points_of(*place)
        crop = similarity_crop(frame, points, TARGET, SIZE)
        assert difference(crop, warped(whole, points, TARGET, SIZE)) < allowed, face
        clip = aligned_clip([face_region(frame, box_of(points), points, reach=0.5)], VIDEO_TARGET, SIZE)
        assert difference(clip, warped_clip([whole], [points], SIZE)) < allowed, face


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@pytest.mark.parametrize("face", ["turned", "in the corner", "half outside"])
def test_a_crop_of_a_turned_frame_is_that_of_the_upright_picture(
    picture: NDArray[np.uint8], orientation: Orientation, face: str
) -> None:
    frame = rgb_frame(picture, orientation=orientation)
    upright = orientation.apply(picture)
    width, height = frame.geometry.width, frame.geometry.height
    x, y, *rest = FACES[face]
    points = points_of(x * width / WIDTH, y * height / HEIGHT, *rest)
    crop = similarity_crop(frame, points, TARGET, SIZE)
    assert np.array_equal(crop, similarity_crop(rgb_frame(upright), points, TARGET, SIZE))
    assert difference(crop, warped(upright, points, TARGET, SIZE)) < 0.2
    region = face_region(frame, box_of(points), points, reach=0.5)
    x0, y0, x1, y1 = enlarged_box(box_of(points), width, height, reach=0.5)
    assert (region.left, region.top) == (x0, y0)
    assert np.array_equal(host_array(region.pixels), upright[y0:y1, x0:x1])


@pytest.mark.parametrize(("rotation", "flip"), [(90, False), (-90, False), (180, False), (0, True), (90, True)])
def test_a_crop_of_a_turned_video_is_that_of_the_picture_people_see(
    tmp_path: Path, picture: NDArray[np.uint8], rotation: int, flip: bool
) -> None:
    whole_picture = picture[:180, :320]
    options = {"crf": "4"}
    frame, whole = decoded(
        write_video(tmp_path / "turned.mp4", [whole_picture], options=options, rotation=rotation, flip=flip)
    )
    turned = np.rot90(whole_picture, rotation // 90)
    upright = np.ascontiguousarray(turned[:, ::-1] if flip else turned)
    assert difference(whole, upright) < 3
    straight, _ = decoded(write_video(tmp_path / "straight.mp4", [upright], options=options))
    width, height = straight.geometry.width, straight.geometry.height
    points = points_of(width / 2, height / 2, 70, 25)
    crop = similarity_crop(frame, points, TARGET, SIZE)
    assert difference(crop, warped(whole, points, TARGET, SIZE)) < 2
    assert difference(crop, similarity_crop(straight, points, TARGET, SIZE)) < 3
    clips = [
        aligned_clip([face_region(each, box_of(points), points, reach=0.5)], VIDEO_TARGET, SIZE)
        for each in (frame, straight)
    ]
    assert difference(*clips) < 3


@pytest.mark.parametrize("pixel_aspect", [0.5, 64 / 45, 2.0])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::3], ids=str)
def test_pixels_that_are_no_squares_are_stretched_before(
    picture: NDArray[np.uint8], pixel_aspect: float, orientation: Orientation
) -> None:
    red, green, blue = (np.ascontiguousarray(picture[..., channel]) for channel in range(3))
    planes = Picture((green, blue, red), 8, Color(IDENTITY, full_range=True), left_chroma=False)
    geometry = Geometry(WIDTH, HEIGHT, pixel_aspect=pixel_aspect, orientation=orientation)
    frame = Frame(0, 0.0, planes, geometry, None)
    stretched = Image.fromarray(picture).resize((round(WIDTH * pixel_aspect), HEIGHT), Image.Resampling.BILINEAR)
    whole = orientation.apply(np.asarray(stretched))
    assert whole.shape[:2] == (geometry.height, geometry.width)
    for face in [(0.5, 0.5, 50, 20), (0.05, 0.9, 60, 0)]:
        points = points_of(face[0] * geometry.width, face[1] * geometry.height, *face[2:])
        assert difference(similarity_crop(frame, points, TARGET, SIZE), warped(whole, points, TARGET, SIZE)) < 0.6
        clip = aligned_clip([face_region(frame, box_of(points), points, reach=0.5)], VIDEO_TARGET, SIZE)
        assert difference(clip, warped_clip([whole], [points], SIZE)) < 0.6


def test_an_anamorphic_video_gives_the_crops_of_its_stretched_picture(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    path = write_video(
        tmp_path / "video.mp4",
        [picture[:180, :320]],
        options={"crf": "4"},
        pixel_format="yuv444p",
        aspect=Fraction(3, 2),
    )
    frame, whole = decoded(path, stretched_to=(480, 180))
    assert (frame.geometry.width, frame.geometry.height) == (480, 180)
    points = points_of(240, 90, 70, -10)
    assert difference(similarity_crop(frame, points, TARGET, SIZE), warped(whole, points, TARGET, SIZE)) < 1


PLACES = st.tuples(st.floats(-60, 400), st.floats(-60, 240), st.floats(20, 200), st.floats(-60, 60))
VIEW = portrait(WIDTH, HEIGHT)


@given(st.lists(PLACES, min_size=1, max_size=5), st.sampled_from([32, 50]))
def test_a_clip_is_the_warp_of_the_pasted_boxes(places: list[tuple[float, float, float, float]], size: int) -> None:
    faces = [points_of(*place) for place in places]
    pictures = [np.roll(VIEW, 30 * number, axis=1) for number in range(len(faces))]
    regions = [
        face_region(rgb_frame(each), box_of(points), points, reach=0.5)
        for each, points in zip(pictures, faces, strict=True)
    ]
    clip = aligned_clip(regions, VIDEO_TARGET, size)
    assert difference(clip, warped_clip(pictures, faces, size)) < 0.5


def test_a_clip_has_one_transform_and_each_frame_its_own_border() -> None:
    """The face moves to the right: in the clip it still does, and what is outside its own enlarged box is black."""
    white = rgb_frame(np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8))
    faces = [points_of(100 + 10 * number, 90, 60, 0) for number in range(4)]
    clip = aligned_clip([face_region(white, box_of(points), points, reach=0.5) for points in faces], VIDEO_TARGET, SIZE)
    row = clip[:, SIZE // 2, :, 0] > 128
    first, last = row.argmax(axis=1), SIZE - 1 - row[:, ::-1].argmax(axis=1)
    assert (np.diff(first[1:]) > 0).all()
    assert (np.diff(last[:3]) > 0).all()
    assert clip[0, :, -1].max() == clip[3, :, 0].max() == 0
    alone = aligned_clip([face_region(white, box_of(faces[0]), faces[0], reach=0.5)], VIDEO_TARGET, SIZE)
    assert not np.array_equal(alone[0], clip[0])


@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=5, max_size=5),
    st.floats(-1e4, 1e4),
    st.floats(0, 1e3),
)
def test_any_landmarks_give_a_crop_and_it_shows_the_picture_or_black(
    places: list[tuple[float, float]], left: float, width: float
) -> None:
    luma, chroma = np.full((33, 51), 120, dtype=np.uint8), np.full((17, 26), 128, dtype=np.uint8)
    picture = Picture((luma, chroma, chroma), 8, Color(BT709, full_range=True), left_chroma=True)
    frame = Frame(0, 0.0, picture, Geometry(51, 33), None)
    points = np.array(places, dtype=np.float32)
    crop = similarity_crop(frame, points, TARGET, 24)
    clip = aligned_clip(
        [face_region(frame, (left, -left, left + width, width - left), points, reach=0.5)], VIDEO_TARGET, 24
    )
    for pixels, shape in [(crop, (24, 24, 3)), (clip, (1, 24, 24, 3))]:
        assert pixels.shape == shape
        assert pixels.dtype == np.uint8
        assert pixels.max() <= 120


@pytest.mark.parametrize("points", [np.full((5, 2), 20.0), np.full((5, 2), 1e4)], ids=str)
def test_landmarks_in_one_place_give_a_crop_that_is_not_scaled(points: NDArray[np.float64]) -> None:
    frame = rgb_frame(VIEW)
    crop = similarity_crop(frame, points.astype(np.float32), TARGET, SIZE)
    x, y = (points.mean(axis=0) - target_landmarks(TARGET, SIZE).mean(axis=0)).tolist()
    expected = cv2.warpAffine(VIEW, np.array([[1, 0, -x], [0, 1, -y]]), (SIZE, SIZE))
    assert difference(crop, np.asarray(expected, dtype=np.uint8)) < 0.3
