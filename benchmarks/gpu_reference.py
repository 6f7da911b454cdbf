"""Reference that works as the authors' scripts do: one frame after another, one clip at a time, one process.

Written from what is known of the scripts of AltFreezing and FTCN (docs/detectors.md): every frame is turned into RGB at
full size and searched for faces by itself; tracks are found when the video has ended; every clip is pasted onto a black
canvas, aligned on the processor, and goes through the network alone, in float32, as torch runs it without compiling.
Their scripts take every window of 32 frames (stride 1); at stride 32 each frame is in one clip. A detector of single
frames gets each face of each frame, one crop at a time.

RetinaFace is not at hand: YuNet stands in, which is faster. So the comparison flatters the authors' way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends import torch_network
from deepscan.runtime.faces.alignment import clip_similarity, enlarged_box, target_landmarks
from deepscan.runtime.faces.clips import paper_windows
from deepscan.runtime.faces.crops import IntBox, crop_square
from deepscan.runtime.faces.detections import Detection, Faces
from deepscan.runtime.faces.face_detectors import AUTHORS_FACE_SCORE
from deepscan.runtime.faces.unbroken_tracks import UnbrokenTrack, unbroken_tracks
from deepscan.runtime.faces.yunet import YuNet
from deepscan.runtime.system.machine import Device, cpu_count
from deepscan.spec import ClipCrop, DetectorSpec, SquareCrop


@dataclass(frozen=True)
class Outcome:
    """Frames of one video that were searched, clips or crops that were scored, and the mean of these scores."""

    frames: int
    items: int
    score: float | None


@dataclass(frozen=True)
class Cutting:
    """One face of one frame: its enlarged box in the frame, the pixels in it, and its five landmarks in the frame."""

    box: IntBox
    pixels: NDArray[np.uint8]
    points: NDArray[np.float64]


class AuthorsWay:
    """Scores videos one after the other.

    Args:
        spec: of the detector.
        network: takes uint8 [1, ...] as an artifact does, and returns logits and scores.
        device: of network and face detector.
    """

    def __init__(self, spec: DetectorSpec, network: nn.Module, *, device: Device) -> None:
        self._spec = spec
        self._network = network.to(device)
        self._device = device
        self._yunet = YuNet(device=device, threads=cpu_count(), score_threshold=AUTHORS_FACE_SCORE)
        torch.set_num_threads(cpu_count())

    def score(self, path: Path, *, stride: int) -> Outcome:
        """Score one video; `stride` is that between two clips, and 1 for detectors of single frames."""
        if self._spec.frames > 1:
            return self._score_clips(path, stride)
        if stride != 1:
            raise ValueError(f"{self._spec.name} takes single frames, which have no stride")
        scores, frames = [], 0
        for picture in _rgb_pictures(path):
            frames += 1
            scores += [self._answer(crop) for crop in self._crops(picture)]
        return Outcome(frames, len(scores), float(np.mean(scores)) if scores else None)

    def _score_clips(self, path: Path, stride: int) -> Outcome:
        found: list[Faces] = []
        cuttings: list[list[Cutting]] = []
        for picture in islice(_rgb_pictures(path), self._spec.paper.frames):
            faces = self._faces(picture)
            found.append(faces)
            cuttings.append([self._cutting(picture, faces, number) for number in range(len(faces))])
        scores = [
            self._answer(self._clip([cuttings[track.start + at][track.faces[at]] for at in window]))
            for track in unbroken_tracks(found)
            for window in self._windows(track, stride)
        ]
        return Outcome(len(found), len(scores), float(np.mean(scores)) if scores else None)

    def _windows(self, track: UnbrokenTrack, stride: int) -> list[list[int]]:
        length = len(track.faces)
        if length < self._spec.paper.min_frames:
            return []
        return paper_windows(length, self._spec.frames, stride)

    def _faces(self, picture: NDArray[np.uint8]) -> Faces:
        (faces,) = self._yunet.detect(np.ascontiguousarray(picture[None, :, :, ::-1]))
        return faces

    def _cutting(self, picture: NDArray[np.uint8], faces: Faces, number: int) -> Cutting:
        assert isinstance(self._spec.crop, ClipCrop)
        height, width = picture.shape[:2]
        corners = Detection(faces.boxes[number], faces.landmarks[number]).corners()
        x0, y0, x1, y1 = box = enlarged_box(corners, width, height, reach=self._spec.crop.reach)
        return Cutting(box, picture[y0:y1, x0:x1].copy(), faces.landmarks[number].astype(np.float64))

    def _clip(self, chosen: list[Cutting]) -> NDArray[np.uint8]:
        """Align the frames of one clip, uint8 [T, size, size, 3]."""
        assert isinstance(self._spec.crop, ClipCrop)
        boxes = np.array([each.box for each in chosen])
        (left, top), (right, bottom) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()
        size = self._spec.size
        points = np.concatenate([each.points - [left, top] for each in chosen])
        target = np.tile(target_landmarks(self._spec.crop.target, size), (len(chosen), 1))
        matrix = clip_similarity(points, target)
        aligned = []
        for each in chosen:
            canvas = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
            x0, y0, x1, y1 = each.box
            canvas[y0 - top : y1 - top, x0 - left : x1 - left] = each.pixels
            aligned.append(cv2.warpAffine(canvas, matrix, (size, size)))
        return np.stack(aligned)

    def _crops(self, picture: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """Yield the crops of one frame, and their mirror images where the detector takes them."""
        assert isinstance(self._spec.crop, SquareCrop)
        faces = self._faces(picture)
        for number in range(len(faces)):
            square = crop_square(Detection(faces.boxes[number], faces.landmarks[number]).corners(), self._spec.crop)
            x0, y0, x1, y1 = (round(edge) for edge in square)
            height, width = picture.shape[:2]
            border = (max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width))
            inside = picture[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
            padded = cv2.copyMakeBorder(inside, *border, cv2.BORDER_REPLICATE)
            crop = cv2.resize(padded, (self._spec.size, self._spec.size), interpolation=cv2.INTER_AREA)
            yield crop.astype(np.uint8, copy=False)
            if self._spec.mirror:
                yield np.ascontiguousarray(crop[:, ::-1]).astype(np.uint8, copy=False)

    def _answer(self, item: NDArray[np.uint8]) -> float:
        """Return the score of one crop or clip, and wait for it."""
        with torch.inference_mode():
            return float(self._network(torch.from_numpy(item)[None].to(self._device))[1])


def network_of(model: str) -> tuple[DetectorSpec, nn.Module]:
    """Return a detector as its authors define it, with the weights of an artifact, in float32."""
    artifact = load_artifact(model)
    spec = artifact.manifest.spec
    return spec, ArtifactGraph(torch_network.network_of(artifact), spec).eval()


def _rgb_pictures(path: Path) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
