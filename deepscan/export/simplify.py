"""Graphs without detours: folds what `torch.onnx` leaves over, and batch normalization where that is asked for."""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnxscript.optimizer
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx_ir.passes import common as passes
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

Doubles: TypeAlias = NDArray[np.float64]

# Chosen one by one: the library's full set also folds batch normalization, in float32.
RULES: Final = (
    rules.mul_by_1_rule,
    rules.add_0_rule,
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.reshape_reshape_rule,
    rules.transpose_transpose_rule,
    rules.materialize_reshape_shape_rule,
    rules.fuse_pad_into_conv_rule,
    # The exporter gives zeros to convolutions without bias; for 3-D ones their very shape is wrong.
    rules.remove_optional_bias_from_conv_rule,
)
ROUNDS: Final = 2  # folding makes room for rules, and rules for folding
LARGEST_FOLDED: Final = 1 << 20  # numbers; a larger constant is a weight, or should stay the formula that it is
LARGEST_SHARED: Final = 16  # numbers; a larger tensor has a name that says whose it is, and keeps it
LAYER_TENSORS: Final = (".weight", ".kernel")  # a node that takes one of these is called after its layer
DEFAULT_EPSILON: Final = 1e-5  # of ONNX


def simplify(model: ir.Model) -> None:
    """Fold constants, shape arithmetic, padding before convolutions and everything that does nothing.

    Shapes that hang on the free batch become constants with one -1, which needs the shapes that the exporter noted.
    Batch normalization stays: its weights then remain the ones that were trained. Nodes with weights get their names.

    Args:
        model: as the exporter made it; changed in place.
    """
    for _ in range(ROUNDS):
        onnxscript.optimizer.fold_constants(
            model, onnx_shape_inference=True, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED
        )
        RewritePass(RULES)(model)
        passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass(size_limit=LARGEST_SHARED)(model)
    passes.CommonSubexpressionEliminationPass()(model)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)
    for node in model.graph:
        if node.op_type == "Reshape":
            node.attributes.pop("allowzero", None)  # no target has a zero, and not every runtime knows the attribute
        owner = next((value.name for value in node.inputs[1:] if value is not None and value.is_initializer()), None)
        if owner is not None and owner.endswith(LAYER_TENSORS):
            node.name = owner.rpartition(".")[0]
    passes.NameFixPass()(model)  # where a layer is run twice


def folded_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its batch normalization in the convolutions before it, computed in float64.

    Normalization of anything but a convolution's only use becomes a multiplication and an addition: there is one in
    HFF, `srm_sa_post.0`. Weights may be stored as float16 and widened (`store_exact_halves`); folded they are float32.

    Args:
        model: in float32; not changed.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]  # whoever converts the graph further would have to keep it true
    stored = _stored(graph)
    uses = Counter(name for node in graph.node for name in node.input) + Counter(out.name for out in graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            kept.append(node)
            continue
        scale, offset = _scale_and_offset(node, stored)
        before = makers.get(node.input[0])
        if before is not None and before.op_type == "Conv" and uses[node.input[0]] == 1:
            weight = _doubles(stored[before.input[1]])
            bias = _doubles(stored[before.input[2]]) if len(before.input) > 2 else np.zeros(1)
            weight *= _along_channels(scale, weight.ndim - 1)
            folded = (("weight", weight), ("bias", bias * scale + offset))
            before.input[1:] = [_added(graph, values, f"{before.name}.{part}.folded") for part, values in folded]
            before.output[0] = node.output[0]
        else:
            places = _rank(model, node.input[0]) - 2
            factor = _added(graph, _along_channels(scale, places), f"{node.name}.scale")
            summand = _added(graph, _along_channels(offset, places), f"{node.name}.offset")
            scaled = f"{node.output[0]}.scaled"
            kept.append(helper.make_node("Mul", [node.input[0], factor], [scaled], name=f"{node.name}.scale"))
            kept.append(helper.make_node("Add", [scaled, summand], node.output[:1], name=f"{node.name}.offset"))
    _keep(graph, kept)
    return made


def _stored(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the tensors that the graph holds, also under the names that they have once they are widened."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    widened = {
        node.output[0]: tensors[node.input[0]]
        for node in graph.node
        if node.op_type == "Cast" and node.input[0] in tensors
    }
    return tensors | widened


def _doubles(tensor: onnx.TensorProto) -> Doubles:
    return numpy_helper.to_array(tensor).astype(np.float64)


def _scale_and_offset(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> tuple[Doubles, Doubles]:
    """Return by what a normalization multiplies each channel, and what it then adds; both [channels]."""
    weight, bias, mean, variance = (_doubles(stored[name]) for name in node.input[1:])
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), DEFAULT_EPSILON)
    scale = weight / np.sqrt(variance + epsilon)
    return scale, bias - mean * scale


def _along_channels(values: Doubles, places: int) -> Doubles:
    """Shape [channels] so that it goes with [..., channels, *places], of which there are so many axes."""
    return values.reshape(-1, *[1] * places)


def _rank(model: onnx.ModelProto, name: str) -> int:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return next(len(value.type.tensor_type.shape.dim) for value in inferred.value_info if value.name == name)


def _added(graph: onnx.GraphProto, values: Doubles, name: str) -> str:
    graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return name


def _keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Leave these nodes in the graph, except widening whose result nothing takes, and the tensors that they take."""
    taken = {name for node in nodes for name in node.input}
    nodes = [node for node in nodes if node.op_type != "Cast" or node.output[0] in taken]
    taken = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in taken]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
