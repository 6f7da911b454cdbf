"""A whole scan with `--sampling paper`, against a plain script that does what FTCN's and AltFreezing's scripts do."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

import deepscan
from deepscan.export.artifact import store_artifact
from deepscan.export.forms import graph_of
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.models.ftcn import TARGET as VIDEO_TARGET
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import Artifact
from deepscan.runtime.faces.yunet import YuNet
from tests.footage import ASTRONAUT, PHONE, open_video
from tests.runtime.host_crops import region_rgb

pytestmark = pytest.mark.usefixtures("workers_here")
LENGTH, SIZE, FRAMES = 32, 224, 40
SPEC = msgspec.structs.replace(find_detector("altfreezing").spec, name="linear")


class Linear(nn.Module):
    """A fixed linear function of a coarse view of every frame: any other clip gives another logit."""

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(7)
        self.register_buffer("pattern", torch.randn(3, LENGTH, 14, 14, generator=draws) / 200)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """[N, 3, T, H, W] -> [N]."""
        coarse = functional.avg_pool3d(clips, (1, 16, 16))
        return (coarse * self.get_buffer("pattern")).sum((1, 2, 3, 4))


@cache
def linear_artifact() -> Artifact:
    """Export the detector once."""
    return packed(graph_of(Linear(), SPEC), SPEC, WeightsOrigin("linear", "0" * 64))


def plain_script(path: Path) -> NDArray[np.float64]:
    """Return the probability of every window, written down as the authors' scripts proceed."""
    yunet = YuNet(device="cpu", threads=1, score_threshold=0.5)
    crops: list[NDArray[np.uint8]] = []
    boxes: list[tuple[int, int, int, int]] = []
    points: list[NDArray[np.float64]] = []
    with open_video(str(path), threads=1) as reader:
        for frame in reader.frames():
            if len(crops) == FRAMES:
                break
            height, width = frame.geometry.height, frame.geometry.width
            small = reader.shrink(frame, 640)
            (faces,) = yunet.detect(small[None])
            faces = faces.scaled(width / small.shape[1], height / small.shape[0])
            assert len(faces) == 1
            x1, y1, x2, y2 = np.round(faces.boxes[0].astype(np.float64))
            w, h = x2 - x1, y2 - y1
            low, high = np.array([x1 - w / 2, y1 - h / 2]), np.array([x2 + w / 2, y2 + h / 2])
            left, top = np.round(np.maximum(low, 0)).astype(int).tolist()
            right, bottom = np.round(np.minimum(high, [width - 1, height - 1])).astype(int).tolist()
            picture = region_rgb(frame, (0, 0, width, height))
            crops.append(picture[top:bottom, left:right])
            boxes.append((left, top, right, bottom))
            points.append(faces.landmarks[0].astype(np.float64))
    return np.array([window_score(crops, boxes, points, start) for start in range(FRAMES - LENGTH + 1)])


def window_score(
    crops: list[NDArray[np.uint8]],
    boxes: list[tuple[int, int, int, int]],
    points: list[NDArray[np.float64]],
    start: int,
) -> float:
    chosen = range(start, start + LENGTH)
    union = np.array([boxes[i] for i in chosen])
    (left, top), (right, bottom) = union[:, :2].min(axis=0).tolist(), union[:, 2:].max(axis=0).tolist()
    target = np.array(VIDEO_TARGET) * SIZE
    # u = a x + b y + c, v = a y - b x + d, by least squares over all frames' points (u, v).
    rows, values = [], []
    for i in chosen:
        for (x, y), (u, v) in zip(target, points[i] - [left, top], strict=True):
            rows += [[x, y, 1, 0], [y, -x, 0, 1]]
            values += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    matrix = cv2.invertAffineTransform(np.array([[a, b, c], [-b, a, d]]))
    clip = []
    for i in chosen:
        canvas = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
        x1, y1, x2, y2 = boxes[i]
        canvas[y1 - top : y2 - top, x1 - left : x2 - left] = crops[i]
        clip.append(cv2.warpAffine(canvas, matrix, (SIZE, SIZE)))
    x = torch.from_numpy(np.stack(clip)).permute(3, 0, 1, 2).double()[None]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1, 1).double() for values in (SPEC.mean, SPEC.std))
    return float(torch.sigmoid(Linear().double()((x - mean) / std)))


@pytest.mark.parametrize("path", [ASTRONAUT, PHONE], ids=lambda path: path.stem)
def test_a_scan_gives_the_mean_over_every_window(path: Path, tmp_path: Path) -> None:
    model = str(store_artifact(linear_artifact(), tmp_path))
    scan = deepscan.scan(path, model=model, sampling="paper", frames=FRAMES)
    (result,) = list(scan)
    expected = plain_script(path)
    assert result.clips == len(expected) == FRAMES - LENGTH + 1
    assert 0.02 < expected.mean() < 0.98
    assert np.ptp(expected) > 0.005
    assert result.score == pytest.approx(expected.mean(), abs=1e-4)
