"""Relation of the face detector's five landmarks and boxes to those of dlib.

    pip install dlib-bin face_recognition_models
    python -m benchmarks.landmarks FILE ...              videos and pictures of people

CADDM and DeepfakeBench align faces by five points taken from dlib's 68 (or 81) landmarks, and FaceForensics++ cuts
squares around dlib's boxes. Deepscan has the points and boxes of YuNet. For every face that both find, this fits the
authors' transform to dlib's points and looks where YuNet's points come to lie in the authors' crop. Every file counts
alike, however many faces it shows.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepscan.installing import install_packages
from deepscan.runtime.faces.alignment import moved, similarity, target_landmarks
from deepscan.runtime.faces.crops import crop_square
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.open_input import open_input
from deepscan.spec import Landmarks, SquareCrop

Floats = NDArray[np.float64]

PREDICTOR = "shape_predictor_68_face_landmarks.dat"
INSTALL = install_packages("dlib-bin", "face_recognition_models")
FRAMES_APART = 15
SMALLEST_FACE = 64  # pixels, longer side of YuNet's box
SAME_FACE = 0.3  # IoU of the two detectors' boxes; dlib's are squares without the forehead
UPSAMPLED = 1  # how often dlib doubles the picture; all the authors have it so
LANDMARKS = 68
EYES, NOSE, MOUTH = (slice(36, 42), slice(42, 48)), 30, (48, 54)
LIDS, LIPS = (37, 44), (49, 55)
FACE_FORENSICS_SCALE = 1.3
LABELS = ("eye, left", "eye, right", "nose", "mouth, left", "mouth, right")


@dataclass(frozen=True)
class Face:
    """One face as both detectors see it, in pixels of the picture.

    Attributes:
        file: number of the file it is from.
        landmarks: dlib's [68, 2].
        square: dlib's box (x0, y0, x1, y1).
        points: YuNet's [5, 2].
        box: YuNet's (x0, y0, x1, y1).
    """

    file: int
    landmarks: Floats
    square: Floats
    points: Floats
    box: Floats


def caddm_points(landmarks: NDArray[Any]) -> Floats:
    """Return CADDM's five landmarks [5, 2] of dlib's landmarks [68 or 81, 2] (CADDM: lib/data_preprocess/cropface.py).

    The eyes are means, cut to whole pixels.
    """
    eyes = [np.trunc(landmarks[eye].mean(axis=0)) for eye in EYES]
    return np.array([*eyes, landmarks[NOSE], *landmarks[list(MOUTH)]], dtype=np.float64)


def caddm_target() -> Landmarks:
    """Return where CADDM places the five landmarks (lib/data_preprocess/cropface.py), in units of the side.

    The mean face is given relative to the face's width; the rule stretches it so that the face is 80 of 224 pixels
    wide between two marks 0.34967 apart, and moves it down so that the eyes lie at 1/2.42 of the height.
    """
    mean_face = [
        [-0.17607, -0.172844],
        [0.1736, -0.17356],
        [-0.00182, 0.0357164],
        [-0.14617, 0.20185],
        [0.14496, 0.19943],
    ]
    placed = np.array(mean_face) * (0.9 * 80 / (224 * 0.34967)) + 0.5
    target: Landmarks = msgspec.convert((placed / [1, placed[0, 1] * 2.42]).tolist(), Landmarks)
    return target


def deepfakebench_points(landmarks: NDArray[Any]) -> Floats:
    """Return DeepfakeBench's five landmarks [5, 2] of dlib's landmarks (DeepfakeBench: preprocessing/preprocess.py).

    Counted from 0: 37 and 44 lie on the upper lids, 49 on the upper lip beside the left corner of the mouth, 55 on the
    lower lip beside the right corner. That turns the crops a little.
    """
    return np.array(landmarks[[*LIDS, NOSE, *LIPS]], dtype=np.float64)


def deepfakebench_target() -> Landmarks:
    """Return where DeepfakeBench places the five landmarks (preprocessing/preprocess.py), in units of the side.

    ArcFace's places in a picture of 112, moved 8 to the right, with a margin of 15 % of the picture on each side.
    """
    arcface = [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
    target: Landmarks = msgspec.convert((((np.array(arcface) + [8, 0]) / 112 + 0.15) / 1.3).tolist(), Landmarks)
    return target


class Dlib:
    """dlib's HOG face detector and its 68 landmarks."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("face_recognition_models")
        try:
            dlib: Any = importlib.import_module("dlib")
        except ImportError as error:
            raise SystemExit(f"dlib is not installed: run `{INSTALL}`.") from error
        if package is None or package.origin is None:
            raise SystemExit(f"{PREDICTOR} is not installed: run `{INSTALL}`.")
        self._detector = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(Path(package.origin).parent / "models" / PREDICTOR))

    def detect(self, rgb: NDArray[np.uint8]) -> Iterator[tuple[Floats, Floats]]:
        """Yield box [4] and landmarks [68, 2] of each face."""
        for found in self._detector(rgb, UPSAMPLED):
            shape = self._predictor(rgb, found)
            landmarks = np.array([(shape.part(n).x, shape.part(n).y) for n in range(LANDMARKS)], dtype=np.float64)
            yield np.array([found.left(), found.top(), found.right(), found.bottom()], dtype=np.float64), landmarks


def faces_of(path: str, file: int, yunet: YuNet, dlib: Dlib) -> Iterator[Face]:
    """Yield the faces that both detectors find in every 15th frame; YuNet gets the small picture of a scan."""
    with open_input(path, threads=2) as reader:
        for number, frame in enumerate(reader.frames()):
            if number % FRAMES_APART:
                continue
            full = reader.shrink(frame, max(frame.geometry.width, frame.geometry.height))
            small = reader.shrink(frame, DETECTION_SIDE)
            seen = yunet.detect(small[None])[0].scaled(full.shape[1] / small.shape[1], full.shape[0] / small.shape[0])
            for square, landmarks in dlib.detect(np.ascontiguousarray(full[..., ::-1])):
                overlaps = [overlap(square, box) for box in seen.boxes]
                if not overlaps or max(overlaps) < SAME_FACE:
                    continue
                best = int(np.argmax(overlaps))
                box, points = seen.boxes[best].astype(np.float64), seen.landmarks[best].astype(np.float64)
                if max(box[2:] - box[:2]) >= SMALLEST_FACE:
                    yield Face(file, landmarks, square, points, box)


def weights_of(faces: Sequence[Face]) -> Floats:
    """Return weights [K] with the sum 1 that make every file count alike."""
    files = np.array([face.file for face in faces])
    weights = 1.0 / np.array([(files == file).sum() for file in files])
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def mean_and_spread(values: Floats, weights: Floats) -> tuple[Any, Any]:
    """Return the weighted mean and standard deviation over the first axis."""
    mean = np.tensordot(weights, values, 1)
    return mean, np.sqrt(np.tensordot(weights, (values - mean) ** 2, 1))


def target_for(faces: Sequence[Face], authors: Sequence[Floats]) -> Floats:
    """Return the target [5, 2] at which YuNet's landmarks give the authors' crops on average.

    It is the mean of the places of YuNet's points, moved, turned and scaled so that the mean change from the authors'
    crop to ours is none: places that scatter have a mean that shows the face a little smaller.

    Args:
        faces: seen by both detectors.
        authors: the authors' matrices [2, 3], one for each face.
    """
    weights = weights_of(faces)
    placed = np.stack([moved(matrix, face.points) for matrix, face in zip(authors, faces, strict=True)])
    mean = mean_and_spread(placed, weights)[0]
    changes = [change(matrix, similarity(face.points, mean)) for matrix, face in zip(authors, faces, strict=True)]
    average = mean_and_spread(np.stack(changes), weights)[0]
    return np.asarray(np.linalg.solve(average[:, :2], (mean - average[:, 2]).T).T, dtype=np.float64)


def change(authors: Floats, ours: Floats) -> Floats:
    """Return the matrix [2, 3] that maps places of the authors' crop to those of ours."""
    linear = ours[:, :2] @ np.linalg.inv(authors[:, :2])
    return np.column_stack([linear, ours[:, 2] - linear @ authors[:, 2]])


def report_template(name: str, faces: Sequence[Face], authors: Sequence[Floats], target: Landmarks, size: int) -> None:
    """Print where YuNet's landmarks lie in the authors' crop, and how far off our crop is with either target."""
    weights, theirs = weights_of(faces), target_landmarks(target, size)
    placed = np.stack([moved(matrix, face.points) for matrix, face in zip(authors, faces, strict=True)])
    rows = zip(target, *mean_and_spread(placed / size, weights), target_for(faces, authors) / size, strict=True)
    print(f"\n{name}: YuNet's points in the authors' crop, in units of its side\n")
    print("| point | authors' target | mean | standard deviation | target for YuNet's points |\n|---|---|---|---|---|")
    for label, row in zip(LABELS, rows, strict=True):
        print(f"| {label} | " + " | ".join(f"{x:.4f}, {y:.4f}" for x, y in row) + " |")
    others: dict[int, Floats] = {}
    for file in {face.file for face in faces}:
        kept = [pair for pair in zip(faces, authors, strict=True) if pair[0].file != file]
        others[file] = target_for([face for face, _ in kept], [matrix for _, matrix in kept])
    print(f"\nOur crop of {size} pixels against the authors', means and largest but 10 %\n")
    print("| target | scale | roll | right | down | corners | 90 % | landmarks | 90 % |\n|---|" + "---|" * 8)
    for label, targets in (("authors'", [theirs] * len(faces)), ("of other files", [others[f.file] for f in faces])):
        ours = [similarity(face.points, aim) for face, aim in zip(faces, targets, strict=True)]
        errors = np.array([departure(*three, size) for three in zip(faces, authors, ours, strict=True)])
        scale, roll, right, down, corners, marks = weights @ errors
        high = [quantile(column, weights, 0.9) for column in errors.T[-2:]]
        print(
            f"| {label} | {scale:.3f} | {roll:+.1f}° | {right:+.1f} | {down:+.1f} "
            f"| {corners:.1f} | {high[0]:.1f} | {marks:.1f} | {high[1]:.1f} |"
        )


def departure(face: Face, authors: Floats, ours: Floats, size: int) -> tuple[float, ...]:
    """Compare two crops of one face.

    Returns:
        How much larger ours shows the face, by how many degrees it is turned clockwise, by how many pixels of the crop
        its center is moved right and down, and the mean displacement of the crop's corners and the face's landmarks.
    """
    between, last = change(authors, ours), size - 1
    places = np.array([[last / 2, last / 2], [0, 0], [last, 0], [0, last], [last, last]])
    shifts = moved(between, places) - places
    marks = moved(ours, face.landmarks) - moved(authors, face.landmarks)
    lengths = [float(np.linalg.norm(vectors, axis=1).mean()) for vectors in (shifts[1:], marks)]
    roll = float(np.degrees(np.arctan2(between[1, 0], between[0, 0])))
    return float(np.hypot(between[0, 0], between[1, 0])), roll, *shifts[0].tolist(), *lengths


def report_square(faces: Sequence[Face]) -> None:
    """Print dlib's box against YuNet's, and the square crop that follows."""
    weights = weights_of(faces)
    rows = []
    for face in faces:
        side = max(face.square[2:] - face.square[:2])
        offset = (face.square[:2] + face.square[2:] - face.box[:2] - face.box[2:]) / 2
        rows.append([side / max(face.box[2:] - face.box[:2]), *(offset / side)])
    means, spreads = mean_and_spread(np.array(rows), weights)
    print("\ndlib's box against YuNet's\n\n| | mean | standard deviation |\n|---|---|---|")
    for label, mean, spread in zip(("side / longer side", "right / side", "down / side"), means, spreads, strict=True):
        print(f"| {label} | {mean:+.4f} | {spread:.4f} |")
    print(f"\nSquares of {FACE_FORENSICS_SCALE} x dlib's box\n")
    print("| on YuNet's box | IoU, mean | all but 10 % |\n|---|---|---|")
    fitted = FACE_FORENSICS_SCALE * means[0], means[2] / FACE_FORENSICS_SCALE
    for scale, shift in ((FACE_FORENSICS_SCALE, 0.0), fitted):
        overlaps = np.array(
            [overlap(square_on(f.square, FACE_FORENSICS_SCALE, 0.0), square_on(f.box, scale, shift)) for f in faces]
        )
        low = quantile(overlaps, weights, 0.1)
        print(f"| scale {scale:.3f}, shift_down {shift:.3f} | {weights @ overlaps:.3f} | {low:.3f} |")


def square_on(box: Floats, scale: float, shift_down: float) -> Floats:
    """Return the square that this policy cuts around a box."""
    x0, y0, x1, y1 = box.tolist()
    return np.array(crop_square((x0, y0, x1, y1), SquareCrop(scale=scale, shift_down=shift_down)))


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the intersection over union of two boxes."""
    both = float(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod())
    return both / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - both)


def quantile(values: Floats, weights: Floats, share: float) -> float:
    """Return the value that `share` of the weights lie below."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), share)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    paths: list[str] = parser.parse_args().files
    yunet, dlib = YuNet(device="cpu", threads=1), Dlib()
    faces = [face for file, path in enumerate(paths) for face in faces_of(path, file, yunet, dlib)]
    if len({face.file for face in faces}) < 2:
        raise SystemExit("Both detectors found faces in fewer than two files: give more videos or pictures of people.")
    print(f"{len(faces)} faces in {len({face.file for face in faces})} files")
    for name, points_of, target, size in (
        ("CADDM", caddm_points, caddm_target(), 224),
        ("DeepfakeBench", deepfakebench_points, deepfakebench_target(), 256),
    ):
        authors = [similarity(points_of(face.landmarks), target_landmarks(target, size)) for face in faces]
        report_template(name, faces, authors, target, size)
    report_square(faces)


if __name__ == "__main__":
    main()
