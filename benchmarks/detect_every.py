"""Savings and effects of searching only every n-th frame for faces.

    python -m benchmarks.detect_every [VIDEO ...]        by default the examples with faces

For each n: processor time per frame of everything before the detector (decoding, faces, crops); how well boxes
interpolated between every n-th frame agree with the ones detected there (IoU, mean and worst 5 %); and how far the
videos' scores lie from those of n = 1. Only videos with the same number of faces throughout tell anything about boxes.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

import deepscan
from benchmarks.footage import EXAMPLES
from benchmarks.measure import machine
from deepscan.runtime.faces.detections import Detection
from deepscan.runtime.faces.face_detectors import DETECTION_SIDE
from deepscan.runtime.faces.following import interpolated
from deepscan.runtime.faces.tracking import widened_iou
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.media.open_input import open_input

STEPS = (1, 2, 3, 5, 8, 12)
ROUNDS = 3
WITH_FACES = ("astronaut_h264.mp4", "two_faces_vp9.webm", "phone_portrait_hevc.mp4", "swapped_face_av1.mp4")


def detected_faces(video: str, detector: YuNet) -> list[list[Detection]]:
    """Return the faces of every frame, left to right, in pixels of the picture that is searched."""
    faces = []
    with open_input(video, threads=2) as reader:
        for frame in reader.frames():
            found = detector.detect(reader.shrink(frame, DETECTION_SIDE)[None])[0]
            order = np.argsort(found.boxes[:, 0])
            faces.append([Detection(found.boxes[place], found.landmarks[place]) for place in order])
    return faces


def agreement(faces: list[list[Detection]], every: int) -> list[float]:
    """Return the IoU of each interpolated box with the one detected in the same frame."""
    overlaps: list[float] = []
    for start in range(0, len(faces) - every, every):
        before, after = faces[start], faces[start + every]
        for step in range(1, every):
            there = faces[start + step]
            if len(before) == len(after) == len(there) > 0:
                pairs = zip(before, after, strict=True)
                guessed = np.stack([interpolated(*pair, step / every).box for pair in pairs])
                boxes = np.stack([face.box for face in there])
                overlaps.extend(np.diag(widened_iou(guessed, boxes, np.zeros(len(guessed), np.float32))).tolist())
    return overlaps


def costs_and_scores(videos: list[str], every: int) -> tuple[float, list[float]]:
    """Return processor milliseconds per frame before the detector, and the videos' scores."""
    running = deepscan.scan(videos, detect_every=every)
    results = sorted(running, key=lambda result: result.index)
    before = [stage.cpu_seconds for stage in running.stage_times() if stage.name != "infer"]
    return 1000 * sum(before) / running.progress.frames, [result.score or 0.0 for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", default=[str(EXAMPLES / name) for name in WITH_FACES])
    videos: list[str] = parser.parse_args().videos
    print(machine())
    detector = YuNet(device="cpu", threads=2)
    faces = [detected_faces(video, detector) for video in videos]
    rounds = [{every: costs_and_scores(videos, every) for every in STEPS} for _ in range(ROUNDS)]
    exact = rounds[0][1][1]
    print(f"{'n':>3}{'cpu ms/frame':>14}{'mean IoU':>10}{'worst 5 %':>11}{'largest score change':>22}")
    for every in STEPS:
        cost = statistics.median(measured[every][0] for measured in rounds)
        overlaps = [overlap for video in faces for overlap in agreement(video, every)] or [1.0]
        change = max(abs(score - before) for score, before in zip(rounds[0][every][1], exact, strict=True))
        print(f"{every:3}{cost:14.2f}{np.mean(overlaps):10.3f}{np.quantile(overlaps, 0.05):11.3f}{change:22.4f}")


if __name__ == "__main__":
    main()
