"""Simplification of the graphs that `torch.onnx` makes, and folding of batch normalization."""

from __future__ import annotations

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

from deepscan.runtime.artifacts.graph_index import GraphIndex, attribute

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
LARGEST_FOLDED: Final = 1 << 20  # elements; a larger constant is a weight, or better left as a formula
LARGEST_SHARED: Final = 16  # elements; a larger tensor keeps its own name, which says which layer it belongs to
LAYER_TENSORS: Final = (".weight", ".kernel")  # a node that reads one of these is named after its layer
DEFAULT_EPSILON: Final = 1e-5  # of ONNX


def simplify(model: ir.Model) -> None:
    """Fold constants, shape arithmetic, padding before convolutions and nodes without effect, in place.

    Shapes that depend on the free batch become constants with one -1; this needs the shapes that the exporter recorded.
    Batch normalization stays, so that the graph holds the trained weights. Nodes are named after their layers.
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
    """Return a float32 graph with its batch normalization in the convolutions before it, computed in float64.

    Normalization of anything but a convolution's only use becomes a multiplication and an addition: there is one in
    HFF, `srm_sa_post.0`.
    """
    index = GraphIndex(model)
    outputs = {output.name for output in model.graph.output}
    nodes: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []

    def constant(values: Doubles, name: str) -> str:
        added.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    for node in index.nodes:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        source = node.input[0]
        weight, bias, mean, variance = (index.constants[name].astype(np.float64) for name in node.input[1:])
        scale = weight / np.sqrt(variance + attribute(node, "epsilon", DEFAULT_EPSILON))
        offset = bias - mean * scale
        before = index.producers.get(source)
        if (
            before is not None
            and before.op_type == "Conv"
            and len(index.consumers[source]) == 1
            and source not in outputs
        ):
            weight, *biases = (index.constants[name].astype(np.float64) for name in before.input[1:])
            bias = biases[0] if biases else np.zeros(1)
            folded = (("weight", weight * _along_channels(scale, weight.ndim - 1)), ("bias", bias * scale + offset))
            before.input[1:] = [constant(values, f"{before.name}.{part}.folded") for part, values in folded]
            before.output[0] = node.output[0]
        else:
            places = len(index.shapes[source]) - 2
            factor = constant(_along_channels(scale, places), f"{node.name}.scale")
            summand = constant(_along_channels(offset, places), f"{node.name}.offset")
            scaled = f"{node.output[0]}.scaled"
            nodes.append(helper.make_node("Mul", [source, factor], [scaled], name=f"{node.name}.scale"))
            nodes.append(helper.make_node("Add", [scaled, summand], node.output[:1], name=f"{node.name}.offset"))
    read = {name for node in nodes for name in node.input}
    return index.rebuilt(nodes, [tensor for tensor in (*index.initializers.values(), *added) if tensor.name in read])


def _along_channels(values: Doubles, places: int) -> Doubles:
    """Reshape [channels] to broadcast with [..., channels, *places], where `places` is the number of axes."""
    return values.reshape(-1, *[1] * places)
