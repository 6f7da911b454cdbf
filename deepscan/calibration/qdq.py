"""Q/DQ graphs: 8-bit numbers as pairs of QuantizeLinear and DequantizeLinear nodes, and weights as integers.

A real number x is stored as q = round(x / scale) + zero_point, and stands for (q - zero_point) * scale. Each quantized
tensor goes through one Q/DQ pair, and all nodes that read it read what comes out. Runtimes then replace "dequantize,
compute, quantize" by integer kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deepscan.calibration.placement import Placement
from deepscan.export.tensor_values import Range
from deepscan.runtime.artifacts.artifacts import Activations
from deepscan.runtime.artifacts.graph_index import GraphIndex, attribute

QUANTIZED: Final = ":8bit"
LEVELS: Final = 255
LARGEST_INT8: Final = 127
# The product of two such scales is still a normal float32.
SMALLEST_SCALE: Final = 1e-18
# A bias is stored in int32, and the sum it is added to needs room too.
LARGEST_BIAS: Final = 2**30


@dataclass(frozen=True, slots=True)
class Scale:
    """The real number above zero that 1 stands for, and the integer, of the type of all, that stands for 0."""

    step: np.float32
    zero_point: np.uint8 | np.int8


def scale_of(seen: Range, activations: Activations) -> Scale:
    """Return the finest scale whose integers cover a range and 0, which padding and ReLU put into almost every tensor.

    `affine` gives uint8, with zero point 0 where nothing is negative; `symmetric` int8 around 0.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if activations == "symmetric":
        return Scale(_step(max(-low, high) / LARGEST_INT8), np.int8(0))
    step = _step((high - low) / LEVELS)
    return Scale(step, np.uint8(min(LEVELS, round(-low / float(step)))))


def _step(size: float) -> np.float32:
    # Where everything is zero, any step will do.
    return np.float32(1.0) if size == 0.0 else np.float32(max(size, SMALLEST_SCALE))


def quantized_weights(
    weights: NDArray[np.float32], *, axis: int, bias: NDArray[np.float32] | None, input_step: np.float32
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8 around 0, with a step for each output channel, which are on `axis`.

    Where a bias [channels] is so large beside a channel's weights that int32 cannot hold it in units of `input_step` x
    the channel's step, that step becomes larger; such a channel is its bias and little else.

    Returns:
        The integers, in -127..127, and the steps [channels].
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights.astype(np.float64)).max(axis=others)
    steps = np.where(largest == 0.0, 1.0, np.maximum(largest / LARGEST_INT8, SMALLEST_SCALE))
    if bias is not None:
        steps = np.maximum(steps, np.abs(bias.astype(np.float64)) / (float(input_step) * LARGEST_BIAS))
    rounded = steps.astype(np.float32)
    shape = [1] * weights.ndim
    shape[axis] = -1
    integers = np.rint(weights / rounded.astype(np.float64).reshape(shape))
    return np.clip(integers, -LARGEST_INT8, LARGEST_INT8).astype(np.int8), rounded


def quantized_bias(
    bias: NDArray[np.float32], weight_steps: NDArray[np.float32], input_step: np.float32
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Round a bias [channels] to int32 in the units of the sum it is added to; return it with those units."""
    steps = (weight_steps * input_step).astype(np.float32)
    return np.rint(bias / steps.astype(np.float64)).astype(np.int32), steps


def with_qdq(
    index: GraphIndex, placement: Placement, ranges: Mapping[str, Range], activations: Activations
) -> onnx.ModelProto:
    """Return the graph with everything quantized that the placement names, by the ranges of its roots.

    Weights are int8, a step for each output channel. With `affine` activations, biases are int32 in the unit of the sum
    they are added to, as ONNX Runtime's kernels need them; with `symmetric`, float32, as TensorRT needs them.
    """
    return _Writer(index, placement, ranges, activations).written()


class _Writer:
    def __init__(
        self, index: GraphIndex, placement: Placement, ranges: Mapping[str, Range], activations: Activations
    ) -> None:
        self.index, self.placement, self.activations = index, placement, activations
        self.scales = {name: scale_of(ranges[root], activations) for name, root in placement.roots.items()}
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def written(self) -> onnx.ModelProto:
        for node in self.index.nodes:
            made = NodeProto()
            made.CopyFrom(node)
            for index, name in enumerate(node.input):
                if name in self.scales and node.name not in self.placement.exact:
                    made.input[index] = name + QUANTIZED
            if node.name in self.placement.layers:
                self._quantize_weights(made, self.scales[node.input[0]].step)
            self.nodes.append(made)
            for name in node.output:
                if name in self.scales:
                    self._quantize(name, self.scales[name])
        read = {name for node in self.nodes for name in node.input}
        kept = [tensor for name, tensor in self.index.initializers.items() if name in read]
        return self.index.rebuilt(self.nodes, [*kept, *self.constants])

    def _quantize(self, name: str, scale: Scale) -> None:
        step = self._constant(f"{name}:step", np.asarray(scale.step))
        zero = self._constant(f"{name}:zero", np.asarray(scale.zero_point))
        for kind, given, made in (
            ("QuantizeLinear", name, f"{name}:integers"),
            ("DequantizeLinear", f"{name}:integers", name + QUANTIZED),
        ):
            self.nodes.append(helper.make_node(kind, [given, step, zero], [made], name=f"{kind} {name}"))

    def _quantize_weights(self, layer: NodeProto, input_step: np.float32) -> None:
        """Store weights, and with `affine` activations the bias, as integers, and read them from there."""
        weights = self.index.constants[layer.input[1]]
        axis = _output_axis(layer)
        bias = None
        if self.activations == "affine" and len(layer.input) > 2 and layer.op_type != "MatMul":
            bias = self.index.constants.get(layer.input[2])
        integers, steps = quantized_weights(weights, axis=axis, bias=bias, input_step=input_step)
        layer.input[1] = self._dequantized(f"{layer.name}:weights", integers, steps, axis=axis)
        if bias is not None:
            sums, units = quantized_bias(bias, steps, input_step)
            layer.input[2] = self._dequantized(f"{layer.name}:bias", sums, units, axis=0)

    def _dequantized(self, name: str, integers: NDArray[Any], steps: NDArray[np.float32], *, axis: int) -> str:
        inputs = [
            self._constant(f"{name}:integers", integers),
            self._constant(f"{name}:steps", steps),
            self._constant(f"{name}:zeros", np.zeros(steps.shape, integers.dtype)),
        ]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [name], name=f"DequantizeLinear {name}", axis=axis)
        )
        return name

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name


def _output_axis(layer: NodeProto) -> int:
    """Return the axis of the output channels in a layer's weights."""
    if layer.op_type == "Conv":
        return 0
    return 0 if layer.op_type == "Gemm" and attribute(layer, "transB", 0) else 1
