"""Very small detectors, each exported once: their logit is how bright a face is, from -4 (black) to 4 (white)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from deepscan.export.artifact import store_artifact
from deepscan.export.forms import graph_of
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.models.detector import HALF
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import Artifact
from deepscan.runtime.artifacts.weights_store import RECORD, Record
from deepscan.runtime.faces.retinaface import INPUT_NAME, OUTPUT_NAMES
from deepscan.spec import DetectorSpec

ORIGIN = WeightsOrigin("tiny.pth", "0" * 64)
FTCN, HFF = find_detector("ftcn").spec, find_detector("hff").spec

TINY_CLIP = msgspec.structs.replace(
    FTCN,
    name="tiny-clip",
    title="Brightness of clips of 8 frames",
    size=32,
    frames=8,
    min_frames=3,
    mean=HALF,
    std=HALF,
    paper=msgspec.structs.replace(FTCN.paper, frames=20, min_frames=2),
)
TINY_FRAME = msgspec.structs.replace(
    HFF,
    name="tiny-frame",
    title="Brightness of single frames",
    size=32,
    paper=msgspec.structs.replace(HFF.paper, frames=6),
)


class Brightness(nn.Module):
    """Four times the mean of its input, which is -1 for black and 1 for white."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] or [N, 3, T, H, W] -> [N]."""
        return 4 * pixels.flatten(1).mean(dim=1)


def tiny_clip_artifact(folder: Path) -> Path:
    """Export a detector that takes clips of 8 crops of 32 x 32 pixels, aligned as those of FTCN; at least 3 frames."""
    return store_artifact(tiny_artifact(TINY_CLIP), folder)


def tiny_frame_artifact(folder: Path) -> Path:
    """Export a detector that takes crops of 32 x 32 pixels."""
    return store_artifact(tiny_artifact(TINY_FRAME), folder)


@cache
def tiny_artifact(spec: DetectorSpec) -> Artifact:
    """Export a detector that takes what the spec says."""
    return packed(graph_of(Brightness(), spec), spec, ORIGIN)


def install_retinaface(home: Path) -> Path:
    """Put a graph that sees nothing into the store, as RetinaFace; return its file."""
    maps = [np.zeros(shape, dtype=np.float32) for shape in [(1, 2, 4), (1, 2), (1, 2, 10)]]
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))
        for name, values in zip(OUTPUT_NAMES, maps, strict=True)
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
        for name, values in zip(OUTPUT_NAMES, maps, strict=True)
    ]
    pictures = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])
    graph = helper.make_graph(nodes, "nothing", [pictures], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    record = Record(
        name="retinaface",
        kind="face detector",
        sha256="a" * 64,
        file="mobilenet0.25_Final.pth",
        trained=True,
        added=0.0,
        note="",
    )
    folder = home / "weights" / f"{record.name}-{record.sha256}"
    folder.mkdir(parents=True)
    (folder / RECORD).write_bytes(msgspec.json.encode(record))
    path = folder / "retinaface.onnx"
    path.write_bytes(model.SerializeToString())
    return path
