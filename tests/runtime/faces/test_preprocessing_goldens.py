"""Preprocessing against what the authors' own code made of the same frames, boxes and points."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.landmarks import caddm_target, deepfakebench_target
from deepscan.models.ftcn import TARGET as VIDEO_TARGET
from deepscan.runtime.faces.alignment import (
    clip_similarity,
    enlarged_box,
    face_region,
    moved,
    similarity,
    target_landmarks,
)
from deepscan.runtime.faces.clips import paper_windows
from deepscan.runtime.faces.detections import Faces
from deepscan.runtime.faces.unbroken_tracks import unbroken_tracks
from deepscan.runtime.media.color import IDENTITY, Color
from deepscan.runtime.media.frames import Frame, Picture
from deepscan.runtime.media.geometry import Geometry
from deepscan.spec import Landmarks
from tests.goldens import golden_inputs
from tests.models.goldens import FOLDER
from tests.runtime.host_crops import aligned_clip, similarity_crop

PREPROCESSING = FOLDER / "preprocessing"
# Bilinear warps differ by a gray level or two between versions of OpenCV.
MEAN_DIFFERENCE = 0.5


def arrays(name: str) -> dict[str, NDArray[Any]]:
    with np.load(PREPROCESSING / f"{name}.npz") as stored:
        return dict(stored)


def records(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((PREPROCESSING / f"{name}.json").read_text())
    return loaded


def frame_of(rgb: NDArray[np.uint8]) -> Frame:
    red, green, blue = (np.ascontiguousarray(rgb[..., channel]) for channel in range(3))
    picture = Picture((green, blue, red), 8, Color(IDENTITY, full_range=True), left_chroma=False)
    return Frame(0, 0.0, picture, Geometry(rgb.shape[1], rgb.shape[0]), None)


def difference(got: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got.astype(int) - expected.astype(int)).mean())


def test_enlarged_boxes() -> None:
    golden = records("video_crop_box")
    for case in golden["cases"]:
        box = enlarged_box(tuple(case["box"]), golden["frame_width"], golden["frame_height"], reach=0.5)
        assert list(box) == case["crop_box"], case


def test_the_similarity_of_a_clip() -> None:
    golden = arrays("video_clip")
    corner = golden["big_boxes"][:, :2].min(axis=0)
    matrix = clip_similarity(
        (golden["points"] - corner).reshape(-1, 2), np.tile(target_landmarks(VIDEO_TARGET, 224), (32, 1))
    )
    np.testing.assert_allclose(matrix, golden["matrix"], rtol=1e-9, atol=1e-9)
    for points, aligned in zip(golden["points"], golden["aligned_points"], strict=True):
        np.testing.assert_allclose(moved(matrix, points - corner), aligned, atol=1e-6)


def test_an_aligned_clip() -> None:
    golden = arrays("video_clip")
    frames = golden_inputs.frames(*golden["frames_rule"].tolist())
    assert golden_inputs.sha256(frames) == golden["frames_sha256"]
    regions = [
        face_region(frame_of(frame), tuple(box), points, reach=0.5)
        for frame, box, points in zip(frames, golden["boxes"], golden["points"], strict=True)
    ]
    clip = aligned_clip(regions, VIDEO_TARGET, 224)
    assert difference(clip[0], golden["aligned_frame0"]) < MEAN_DIFFERENCE
    assert difference(clip[31], golden["aligned_frame31"]) < MEAN_DIFFERENCE
    means = np.rint(clip.reshape(32, 56, 4, 56, 4, 3).mean(axis=(2, 4))).astype(np.uint8)
    assert difference(means, golden["aligned_mean4"]) < MEAN_DIFFERENCE
    # Outside each frame's own box the picture is black, though the video goes on there.
    black = golden["aligned_frame31"].max(axis=2) == 0
    assert black.sum() > 100
    assert clip[31][black].max() <= 1


def test_the_pose_at_which_the_mirrored_answer_wins() -> None:
    golden = arrays("video_similarity_pose_sweep")
    for source, matrix, determinant in zip(golden["source"], golden["matrix"], golden["det"], strict=True):
        got = clip_similarity(source, golden["target"])
        np.testing.assert_allclose(got, matrix, rtol=1e-6, atol=1e-6)
        assert np.linalg.det(got[:, :2]) == pytest.approx(determinant, rel=1e-6)
    assert (golden["det"] < 0).any()


@pytest.mark.parametrize("scenario", sorted(records("video_tracking")))
def test_tracks(scenario: str) -> None:
    golden = records("video_tracking")[scenario]
    frames = [
        Faces(
            np.array([face[:4] for face in faces], dtype=np.float32).reshape(-1, 4),
            np.zeros((len(faces), 5, 2), dtype=np.float32),
            np.array([face[4] for face in faces], dtype=np.float32),
        )
        for faces in golden["faces"]
    ]
    tracks = unbroken_tracks(frames)
    assert [[track.start, track.start + len(track.faces)] for track in tracks] == golden["ranges"]
    for track, boxes in zip(tracks, golden["track_boxes"], strict=True):
        got = [golden["faces"][track.start + place][face][:4] for place, face in enumerate(track.faces)]
        assert got == [box[:4] for box in boxes]


@pytest.mark.parametrize("name", ["altfreezing", "ftcn"])
def test_clip_indices(name: str) -> None:
    golden = records(f"{name}_clip_indices")
    compared = 0
    for length, clips in golden.items():
        if isinstance(clips, list):  # FTCN's code fails for the shortest tracks
            assert paper_windows(int(length), 32, 1) == clips
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize(
    ("name", "target", "size"),
    [("caddm_crop", caddm_target(), 224), ("deepfakebench_crop", deepfakebench_target(), 256)],
)
def test_crops_of_single_frames(name: str, target: Landmarks, size: int) -> None:
    golden = arrays(name)
    frame = golden_inputs.frames(*golden["frame_rule"].tolist())[0]
    assert golden_inputs.sha256(frame) == golden["frame_sha256"]
    stored = golden["mean_face_224" if name == "caddm_crop" else "target_256"]
    np.testing.assert_allclose(target_landmarks(target, size), stored, atol=2e-5)
    for case in range(2):
        points = golden[f"points5_{case}"].astype(np.float32)
        matrix = similarity(points.astype(np.float64), target_landmarks(target, size))
        np.testing.assert_allclose(matrix, golden[f"matrix_{case}"], atol=1e-4)
        crop = similarity_crop(frame_of(frame), points, target, size)
        assert difference(crop, golden[f"crop_rgb_{case}"]) < MEAN_DIFFERENCE
