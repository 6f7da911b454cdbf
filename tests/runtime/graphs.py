"""Graphs that are detectors in form, made on the spot: one that works, and ones that do not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from deepscan.export.artifact import store_artifact, weights_in_bytes, weights_name
from deepscan.export.forms import graph_of
from deepscan.export.packing import packed
from deepscan.models.networks.caddm import Caddm, on_efficientnet
from deepscan.models.networks.ftcn import FTCN, Head
from deepscan.models.networks.i3d import EXPANSION, I3D, Stage
from deepscan.runtime.artifacts.artifacts import Artifact, Form, WeightsFile, load_artifact
from deepscan.spec import DetectorSpec
from tests.runtime.tiny_detectors import ORIGIN, TINY_CLIP, TINY_FRAME


class SmallClipNetwork(nn.Module):
    """The kinds of layers that AltFreezing is made of, with few channels and random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (5, 7, 7), stride=(1, 2, 2), padding=(2, 3, 3), bias=False)
        self.stem_bn = nn.BatchNorm3d(8)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.along_time = nn.Conv3d(8, 16, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.in_pictures = nn.Conv3d(16, 16, (1, 3, 3), padding=(0, 1, 1))
        self.head = nn.Linear(16, 1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """[N, 3, T, H, W] -> [N]."""
        x = self.pool(torch.relu(self.stem_bn(self.stem(clips))))
        x = torch.relu(self.along_time(x))
        x = torch.relu(self.in_pictures(x))
        logits: torch.Tensor = self.head(x.mean((2, 3, 4)))[:, 0]
        return logits


class SmallFrameNetwork(nn.Module):
    """The kinds of layers that HFF is made of, with few channels and random weights.

    ONNX Runtime adds up the mean over channels in another order when the batch is larger.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.query = nn.Conv2d(24, 12, 1)
        self.key = nn.Conv2d(24, 12, 1)
        self.value = nn.Conv2d(24, 24, 1)
        self.mask = nn.Conv2d(2, 1, 7, padding=3)
        self.head = nn.Linear(24, 1)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N]."""
        x = torch.relu(self.stem(faces))
        attention = torch.softmax(self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2), -1)
        x = x + (self.value(x).flatten(2) @ attention.transpose(1, 2)).view_as(x)
        x = x * torch.sigmoid(self.mask(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))[:, 0]
        return logits


@cache
def small_clip_artifact() -> Artifact:
    """Return a detector of clips of 8 crops of 32 x 32 pixels with 3-D convolutions."""
    return packed(graph_of(small_clip_network(), TINY_CLIP), TINY_CLIP, ORIGIN)


def small_clip_network() -> nn.Module:
    """Return a network of 3-D convolutions; the same weights each time."""
    torch.manual_seed(0)
    return _larger(SmallClipNetwork(), 3).eval()


def small_frame_network() -> nn.Module:
    """Return a network with attention; the same weights each time."""
    torch.manual_seed(0)
    return _larger(SmallFrameNetwork(), 3).eval()


def small_ftcn(*, frame_pool: int) -> FTCN:
    """Return FTCN with one narrow stage, which can be lowered; the same weights each time.

    Args:
        frame_pool: T / 16.
    """
    torch.manual_seed(0)
    network = FTCN(frame_pool=frame_pool)
    stage = Stage(inner=8, times=(3, 1), stride=1)
    network.resnet = I3D(Head(stage.inner * EXPANSION), stages=(stage,), frame_pool=frame_pool, temporal_only=True)
    return network.eval()


def narrow_caddm() -> Caddm:
    """Return CADDM on an EfficientNet as deep as b3, with a ninth of its 211 M weights; the same weights each time."""
    torch.manual_seed(0)
    return on_efficientnet(width=0.4, depth=1.4).eval()


def stored_artifact(
    network: nn.Module,
    spec: DetectorSpec,
    folder: Path,
    *,
    form: Form | None = None,
    graph: onnx.ModelProto | None = None,
) -> Artifact:
    """Export a network into a folder, with its weights beside the artifact; a graph of it may be there already."""
    weights = weights_in_bytes(network)
    kept = WeightsFile(file=weights_name(spec), sha256=hashlib.sha256(weights).hexdigest())
    artifact = packed(
        graph_of(network, spec) if graph is None else graph, spec, ORIGIN, form=form, network_weights=kept
    )
    return load_artifact(str(store_artifact(artifact, folder, weights=weights)))


def _larger(network: nn.Module, factor: float) -> nn.Module:
    """Multiply the weights, so that logits differ enough to tell items apart."""
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(factor)
    return network


def mean_graph(
    name: str = "faces",
    kind: int = TensorProto.UINT8,
    side: int = TINY_FRAME.size,
    output: str = "logit",
    inputs: int = 1,
) -> onnx.ModelProto:
    """Return a graph that gives something made of the mean of its input, 0..255."""
    nodes = [
        helper.make_node("Cast", [name], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["wide", "axes"], ["mean"], keepdims=0),
        helper.make_node("Relu", ["mean"], [output]),
    ]
    taken = [
        helper.make_tensor_value_info(name if number == 0 else f"more{number}", kind, ["N", side, side, 3])
        for number in range(inputs)
    ]
    given = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N"])]
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    body = helper.make_graph(nodes, "mean", taken, given, [axes])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def graph_from(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return a graph that makes `logit` of `wide`, the pixels of crops in float32 [N, 32, 32, 3]."""
    side = TINY_FRAME.size
    body = helper.make_graph(
        [helper.make_node("Cast", ["faces"], ["wide"], to=TensorProto.FLOAT), *nodes],
        "made",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def determinant_artifact() -> Artifact:
    """Return a detector with an operator, Det, that only ONNX Runtime's CPU side has."""
    nodes = [
        helper.make_node("ReduceMean", ["wide", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "squares"], ["square"]),
        helper.make_node("Det", ["square"], ["logit"]),
    ]
    return frame_artifact(graph_from(nodes, {"axes": np.array([1, 2, 3]), "squares": np.array([-1, 1, 1])}))


def endless_artifact() -> Artifact:
    """Return a detector that never gives an answer."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["held", "held"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N"]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMean", ["wide", "axes"], ["mean"], keepdims=0),
        helper.make_node("Loop", ["", "true", "mean"], ["logit"], body=body),
    ]
    return frame_artifact(graph_from(nodes, {"axes": np.array([1, 2, 3]), "true": np.array(True)}))


def frame_artifact(model: onnx.ModelProto) -> Artifact:
    """Return any graph with the record of a detector that takes crops of 32 x 32 pixels."""
    return packed(model, TINY_FRAME, ORIGIN)
