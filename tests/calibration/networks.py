"""Small graphs that keep the artifact contract, written node by node, with weights that the test chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIDE = 12


class Network:
    """Collects nodes; each method adds some and returns the name of what comes out, which is its node's name too."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def pixels(self) -> str:
        """Faces [N, SIDE, SIDE, 3], as [N, 3, SIDE, SIDE] from -1 to 1."""
        self.add("Cast", ["faces"], "floats", to=TensorProto.FLOAT)
        self.add("Transpose", ["floats"], "turned", perm=[0, 3, 1, 2])
        self.add("Div", ["turned", self.constant("half", np.float32(127.5))], "divided")
        return self.add("Sub", ["divided", self.constant("white", np.float32(1))], "pixels")

    def convolution(
        self, given: str, name: str, shape: tuple[int, ...], *, relu: bool = True, bias: bool = True, group: int = 1
    ) -> str:
        """With random weights [O, I, ...] of a size that keeps activations near 1; `name` with `.relu` behind it."""
        weights = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        inputs = [given, self.constant(f"{name}.weight", weights.astype(np.float32))]
        if bias:
            values = self.random.normal(size=shape[0]) / 4
            inputs.append(self.constant(f"{name}.bias", values.astype(np.float32)))
        pads = [size // 2 for size in shape[2:]] * 2
        self.add("Conv", inputs, name, pads=pads, group=group)
        return self.add("Relu", [name], f"{name}.relu") if relu else name

    def model(self, last: str, channels: int, *, item: tuple[int, ...] = (SIDE, SIDE, 3)) -> onnx.ModelProto:
        """End with the mean over everything but the channels, a layer to one number, and the score."""
        places = list(range(2, len(item) + 1))
        self.add("ReduceMean", [last, self.constant("places", np.array(places))], "mean", keepdims=0)
        weights = self.random.normal(size=(1, channels)).astype(np.float32)
        self.add("Gemm", ["mean", self.constant("fc.weight", weights), self.constant("fc.bias", [0.0])], "fc", transB=1)
        self.constants["fc.bias"] = self.constants["fc.bias"].astype(np.float32)
        self.add("Squeeze", ["fc", self.constant("last", np.array([1]))], "logit")
        return self.finished(item=item)

    def finished(self, *, item: tuple[int, ...] = (SIDE, SIDE, 3)) -> onnx.ModelProto:
        """End behind `logit` with the score."""
        self.add("Sigmoid", ["logit"], "score")
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["N", *item])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("logit", "score")],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def residual_network() -> onnx.ModelProto:
    """stem - block of two convolutions with a shortcut - depthwise - pool - head."""
    net = Network()
    stem = net.convolution(net.pixels(), "stem", (8, 3, 3, 3))
    first = net.convolution(stem, "first", (8, 8, 3, 3))
    second = net.convolution(first, "second", (8, 8, 1, 1), relu=False)
    net.add("Add", [second, stem], "sum")
    net.add("Relu", ["sum"], "sum.relu")
    deep = net.convolution("sum.relu", "depthwise", (8, 1, 3, 3), group=8, bias=False)
    net.add("MaxPool", [deep], "pool", kernel_shape=[2, 2], strides=[2, 2])
    return net.model(net.convolution("pool", "wide", (16, 8, 1, 1)), 16)


def faces(count: int, *, seed: int = 1, item: tuple[int, ...] = (SIDE, SIDE, 3)) -> NDArray[np.uint8]:
    """Pictures that differ in brightness, so that logits do."""
    random = np.random.default_rng(seed)
    levels = random.integers(30, 226, (count, *[1] * len(item)))
    grain = random.integers(-30, 30, (count, *item))
    return (levels + grain).astype(np.uint8)
