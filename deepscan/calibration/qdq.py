"""Writes quantization into a graph: QuantizeLinear and DequantizeLinear nodes, and weights as integers.

Each tensor that is quantized goes through one such pair, and everybody reads what comes out. Runtimes then replace
"dequantize, compute, quantize" by integer kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deepscan.calibration.graph_reading import Reading
from deepscan.calibration.placement import Placement
from deepscan.calibration.scales import Range, Scale, quantized_bias, quantized_weights, scale_of
from deepscan.runtime.artifacts.artifacts import Activations

QUANTIZED: Final = ":8bit"


def with_qdq(
    reading: Reading, placement: Placement, ranges: Mapping[str, Range], activations: Activations
) -> onnx.ModelProto:
    """Return the graph with everything quantized that the placement says.

    Weights are int8, a step for each output channel. With `affine` activations, biases are int32 in the unit of the sum
    they are added to, as ONNX Runtime's kernels want them; with `symmetric`, float32, as TensorRT does.

    Args:
        reading: of the graph.
        placement: what is quantized.
        ranges: of every root in it.
        activations: as integers with a zero point, or around zero.
    """
    return _Writer(reading, placement, ranges, activations).written()


class _Writer:
    def __init__(
        self, reading: Reading, placement: Placement, ranges: Mapping[str, Range], activations: Activations
    ) -> None:
        self.reading, self.placement, self.activations = reading, placement, activations
        self.scales = {name: scale_of(ranges[root], activations) for name, root in placement.roots.items()}
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def written(self) -> onnx.ModelProto:
        source = self.reading.model
        for node in source.graph.node:
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
        kept = [tensor for tensor in source.graph.initializer if tensor.name in read]
        graph = helper.make_graph(
            self.nodes, source.graph.name, source.graph.input, source.graph.output, [*kept, *self.constants]
        )
        made_model = helper.make_model(graph, opset_imports=source.opset_import, ir_version=source.ir_version)
        made_model.producer_name, made_model.producer_version = source.producer_name, source.producer_version
        made_model.metadata_props.extend(source.metadata_props)
        return made_model

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
        weights = self.reading.constants[layer.input[1]]
        axis = _output_axis(layer)
        bias = None
        if self.activations == "affine" and len(layer.input) > 2 and layer.op_type != "MatMul":
            bias = self.reading.constants.get(layer.input[2])
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
    """Return which axis of a layer's weights is that of the output channels."""
    if layer.op_type == "Conv":
        return 0
    turned = layer.op_type == "Gemm" and any(entry.name == "transB" and entry.i for entry in layer.attribute)
    return 0 if turned else 1
