"""Where a graph is quantized: which nodes compute in 8 bits, and which tensors are therefore stored in 8 bits.

A node in 8 bits needs its inputs in 8 bits. Data movement (reshaping, slicing, maxima) has one scale in and out, so a
tensor behind it has the range of its root, the tensor before all the movement. A node in float32 reads its inputs as
they are before quantization: it is as exact as in the original graph, and ONNX Runtime, which would quantize the
weights of a layer between two quantized tensors by itself, leaves them alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from deepscan.runtime.artifacts.artifacts import Activations
from deepscan.runtime.artifacts.graph_index import DATA_MOVEMENT_OPS, GraphIndex, attribute

# With constant weights as the second input.
LAYERS: Final = frozenset({"Conv", "Gemm", "MatMul"})
JOINS: Final = frozenset({"Add", "Concat"})
MEANS: Final = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
# Runtimes fuse them with the layer before and the quantization behind them, so nothing comes between.
FUSED: Final = frozenset({"Relu", "Clip"})
PICTURE_AXES: Final = 4


@dataclass(frozen=True, eq=False)
class Placement:
    """Nodes and tensors to quantize.

    Attributes:
        layers: names of the nodes whose weights are quantized.
        roots: for each quantized tensor, by name, the tensor whose range it has.
        exact: names of the nodes that read tensors as they are before quantization.
    """

    layers: frozenset[str]
    roots: Mapping[str, str]
    exact: frozenset[str]


def quantizable(index: GraphIndex, activations: Activations) -> tuple[str, ...]:
    """Return the names of the nodes that can compute in 8 bits, in the order of the graph."""
    # OpenVINO 2026.4 forgets the zero point where five axes, one of them free, are padded before a quantization.
    padded: set[str] = set()
    names = []
    for node in index.nodes:
        pads = node.op_type == "Pad" and _rank(index, node.input[0]) > PICTURE_AXES
        if activations == "affine" and (pads or (_moves(index, node) and node.input[0] in padded)):
            padded.update(node.output)
        quantized = _inputs_in_8_bits(index, node)
        if quantized and padded.isdisjoint(quantized):
            names.append(node.name)
    return tuple(names)


def placed(index: GraphIndex, nodes: Collection[str], activations: Activations) -> Placement:
    """Decide what is quantized so that these nodes compute in 8 bits.

    For CPUs (`affine`), both inputs of an addition are quantized, and the output of each convolution unless a node
    that reads it must not be: only between quantizations does ONNX Runtime take integer kernels, and OpenVINO fuses
    them all the same. For TensorRT (`symmetric`), an addition leaves one convolution's output as it is, to be added
    before rounding; see "Q/DQ layer-placement recommendations" in its documentation.
    """
    possible = quantizable(index, activations)
    fp32_nodes = {*possible, *(node.name for node in index.nodes if _has_weights(index, node))}.difference(nodes)
    # Before a 3-D pool, ONNX Runtime would run the stem in 8 bits, where it is slower than in float32.
    keep_away = fp32_nodes | {
        node.name for node in index.nodes if node.op_type == "MaxPool" and not _moves(index, node)
    }
    quantized: set[str] = set()
    for node in index.nodes:
        if node.name not in nodes:
            continue
        inputs = _inputs_in_8_bits(index, node)
        if activations == "symmetric" and node.op_type == "Add":
            inputs = _without_a_convolution(index, inputs)
        quantized.update(inputs)
        output = _behind_activation(index, node)
        if activations == "affine" and node.op_type == "Conv" and not _is_read_by(index, output, keep_away):
            quantized.add(output)
    exact = set(fp32_nodes)
    for node in reversed(index.nodes):
        if _moves(index, node):
            if quantized.intersection(node.output):
                quantized.add(node.input[0])
            elif any(_is_read_by(index, name, fp32_nodes) for name in node.output):
                exact.add(node.name)
    roots: dict[str, str] = {}
    for node in index.nodes:
        for name in node.output:
            roots[name] = roots[node.input[0]] if _moves(index, node) else name
    layers = frozenset(node.name for node in index.nodes if node.op_type in LAYERS and node.name in nodes)
    return Placement(layers, {name: root for name, root in roots.items() if name in quantized}, frozenset(exact))


def _inputs_in_8_bits(index: GraphIndex, node: NodeProto) -> tuple[str, ...]:
    """Return the inputs that must be in 8 bits for a node to compute in 8 bits; none if it cannot."""
    changing = tuple(name for name in node.input if name in index.floats)
    if node.op_type in LAYERS:
        fits = changing == (node.input[0],) and _has_weights(index, node) and not _has_wide_groups(index, node)
    elif node.op_type in JOINS:
        fits = len(changing) == len(node.input)
    else:
        fits = node.op_type in MEANS and bool(changing)
    return changing if fits else ()


def _has_weights(index: GraphIndex, node: NodeProto) -> bool:
    return node.op_type in LAYERS and node.input[1] in index.constants


def _has_wide_groups(index: GraphIndex, layer: NodeProto) -> bool:
    """Tell whether a layer has groups of several outputs, for which ONNX Runtime has no fast integer kernel."""
    groups: int = attribute(layer, "group", 1)
    return 1 < groups < len(index.constants[layer.input[1]])


def _moves(index: GraphIndex, node: NodeProto) -> bool:
    """Tell whether the float32 output of a node holds values of its first input, or zeros, and no others."""
    if node.op_type not in DATA_MOVEMENT_OPS or node.input[0] not in index.floats:
        return False
    if node.op_type == "MaxPool":
        return _rank(index, node.input[0]) == PICTURE_AXES
    if node.op_type == "Pad" and attribute(node, "mode", b"constant") == b"constant":
        given = len(node.input) > 2 and node.input[2]
        filling: NDArray[Any] | None = index.constants.get(node.input[2]) if given else np.zeros(1)
        return filling is not None and not filling.any()
    return True


def _without_a_convolution(index: GraphIndex, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the last input that comes straight from a convolution and goes nowhere else."""
    for name in reversed(inputs):
        maker = index.producers.get(name)
        if maker is not None and maker.op_type == "Conv" and len(index.consumers[name]) == 1:
            return tuple(other for other in inputs if other != name)
    return inputs


def _behind_activation(index: GraphIndex, layer: NodeProto) -> str:
    readers = index.consumers[layer.output[0]]
    last = readers[0] if len(readers) == 1 and readers[0].op_type in FUSED else layer
    output: str = last.output[0]
    return output


def _is_read_by(index: GraphIndex, tensor: str, nodes: Collection[str]) -> bool:
    """Tell whether one of some nodes reads a tensor, as it is or moved."""
    return any(
        reader.name in nodes
        or (_moves(index, reader) and any(_is_read_by(index, name, nodes) for name in reader.output))
        for reader in index.consumers[tensor]
    )


def _rank(index: GraphIndex, tensor: str) -> int:
    return len(index.shapes.get(tensor, ()))
