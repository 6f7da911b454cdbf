"""Where a graph is quantized: which nodes compute in 8 bits, and which tensors are therefore stored in 8 bits.

A node in 8 bits wants its inputs in 8 bits. What only moves numbers (reshaping, slicing, maxima) has one scale in and
out, so a tensor behind it has the range of its root, the tensor before all the moving. A node that is left out reads
its inputs as they are before quantization: it is as exact as in float32, and ONNX Runtime, which would quantize the
weights of a layer between two quantized tensors by itself, leaves them alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from deepscan.calibration.graph_reading import Reading
from deepscan.runtime.artifacts.artifacts import Activations

# With constant weights as the second input.
LAYERS: Final = frozenset({"Conv", "Gemm", "MatMul"})
JOINS: Final = frozenset({"Add", "Concat"})
MEANS: Final = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
MOVES: Final = frozenset(
    "Expand Flatten Gather Identity MaxPool Pad ReduceMax Reshape Slice Split Squeeze Transpose Unsqueeze".split()
)
# Runtimes fuse them with the layer before and the quantization behind them, so nothing comes between.
FUSED: Final = frozenset({"Relu", "Clip"})
PICTURE_AXES: Final = 4


@dataclass(frozen=True, eq=False)
class Placement:
    """Where to quantize.

    Attributes:
        layers: names of the nodes whose weights are quantized.
        roots: for each tensor that is quantized the one whose range it has.
        exact: names of the nodes that read tensors as they are before quantization.
    """

    layers: frozenset[str]
    roots: Mapping[str, str]
    exact: frozenset[str]


def quantizable(reading: Reading, activations: Activations) -> tuple[str, ...]:
    """Return the names of the nodes that can compute in 8 bits, in the order of the graph."""
    # OpenVINO 2026.4 forgets the zero point where five axes, one of them free, are padded before a quantization.
    padded: set[str] = set()
    names = []
    for node in reading.model.graph.node:
        pads = node.op_type == "Pad" and len(reading.shapes.get(node.input[0], ())) > PICTURE_AXES
        if activations == "affine" and (pads or (_moves(reading, node) and node.input[0] in padded)):
            padded.update(node.output)
        wanted = _wanted_by(reading, node)
        if wanted and padded.isdisjoint(wanted):
            names.append(node.name)
    return tuple(names)


def placed(reading: Reading, nodes: Collection[str], activations: Activations) -> Placement:
    """Decide what is quantized so that some nodes compute in 8 bits.

    For CPUs (`affine`), both inputs of an addition are quantized, and the output of each convolution unless somebody
    who reads it must not: only between quantizations does ONNX Runtime take integer kernels, and OpenVINO fuses them
    all the same. For TensorRT (`symmetric`), an addition leaves one convolution's output as it is, to be added before
    rounding; see "Q/DQ layer-placement recommendations" in its documentation.

    Args:
        reading: of the graph.
        nodes: names from `quantizable`.
        activations: for which kind of runtime.
    """
    graph = reading.model.graph
    possible = quantizable(reading, activations)
    left_out = {*possible, *(node.name for node in graph.node if _has_weights(reading, node))}.difference(nodes)
    # Before a 3-D pool, ONNX Runtime would run the stem in 8 bits, where it is slower than in float32.
    keep_away = left_out | {node.name for node in graph.node if node.op_type == "MaxPool" and not _moves(reading, node)}
    wanted: set[str] = set()
    for node in graph.node:
        if node.name not in nodes:
            continue
        inputs = _wanted_by(reading, node)
        if activations == "symmetric" and node.op_type == "Add":
            inputs = _without_a_convolution(reading, inputs)
        wanted.update(inputs)
        output = _behind_activation(reading, node)
        if activations == "affine" and node.op_type == "Conv" and not _is_read_by(reading, output, keep_away):
            wanted.add(output)
    exact = set(left_out)
    for node in reversed(graph.node):
        if _moves(reading, node):
            if wanted.intersection(node.output):
                wanted.add(node.input[0])
            elif any(_is_read_by(reading, name, left_out) for name in node.output):
                exact.add(node.name)
    roots: dict[str, str] = {}
    for node in graph.node:
        for name in node.output:
            roots[name] = roots[node.input[0]] if _moves(reading, node) else name
    layers = frozenset(node.name for node in graph.node if node.op_type in LAYERS and node.name in nodes)
    return Placement(layers, {name: root for name, root in roots.items() if name in wanted}, frozenset(exact))


def _wanted_by(reading: Reading, node: NodeProto) -> tuple[str, ...]:
    """Return the inputs that must be in 8 bits for a node to compute in 8 bits; none if it cannot."""
    changing = tuple(name for name in node.input if name in reading.shapes)
    if node.op_type in LAYERS:
        fits = changing == (node.input[0],) and _has_weights(reading, node) and not _has_wide_groups(reading, node)
    elif node.op_type in JOINS:
        fits = len(changing) == len(node.input)
    else:
        fits = node.op_type in MEANS and bool(changing)
    return changing if fits else ()


def _has_weights(reading: Reading, node: NodeProto) -> bool:
    return node.op_type in LAYERS and node.input[1] in reading.constants


def _has_wide_groups(reading: Reading, layer: NodeProto) -> bool:
    """Tell whether a layer has groups of several outputs, for which ONNX Runtime has no fast integer kernel."""
    groups: int = _attribute(layer, "group", 1)
    return 1 < groups < len(reading.constants[layer.input[1]])


def _moves(reading: Reading, node: NodeProto) -> bool:
    """Tell whether a node gives float32 numbers that it was given, or zeros, and no others."""
    if node.op_type not in MOVES or node.input[0] not in reading.shapes:
        return False
    if node.op_type == "MaxPool":
        return len(reading.shapes[node.input[0]]) == PICTURE_AXES
    if node.op_type == "Pad" and _attribute(node, "mode", b"constant") == b"constant":
        given = len(node.input) > 2 and node.input[2]
        filling: NDArray[Any] | None = reading.constants.get(node.input[2]) if given else np.zeros(1)
        return filling is not None and not filling.any()
    return True


def _without_a_convolution(reading: Reading, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the last input that comes straight from a convolution and goes nowhere else."""
    for name in reversed(inputs):
        maker = reading.makers.get(name)
        if maker is not None and maker.op_type == "Conv" and len(reading.readers[name]) == 1:
            return tuple(other for other in inputs if other != name)
    return inputs


def _behind_activation(reading: Reading, layer: NodeProto) -> str:
    readers = reading.readers[layer.output[0]]
    last = readers[0] if len(readers) == 1 and readers[0].op_type in FUSED else layer
    output: str = last.output[0]
    return output


def _is_read_by(reading: Reading, tensor: str, nodes: Collection[str]) -> bool:
    """Tell whether one of some nodes reads a tensor, as it is or moved."""
    return any(
        reader.name in nodes
        or (_moves(reading, reader) and any(_is_read_by(reading, name, nodes) for name in reader.output))
        for reader in reading.readers[tensor]
    )


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
