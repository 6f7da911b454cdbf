"""ONNX graphs of torch modules, with a dynamic batch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Final

import onnx
import torch
from torch import nn

from deepscan.errors import ModelError
from deepscan.export.simplify import simplify
from deepscan.runtime.faces.retinaface import INPUT_NAME, OUTPUT_NAMES
from deepscan.runtime.system.library_files import torch_files_removed

OPSET: Final = 18
# Networks are traced with more than one item, so that no batch size is fixed in the graph.
TRACED_BATCH: Final = 2
# The face detector is traced with two different sides that no stride divides, so that no size is fixed either.
TRACED_SIZE: Final = (171, 235)


def onnx_from_module(module: nn.Module, item_shape: tuple[int, ...], *, input_name: str) -> onnx.ModelProto:
    """Trace a detector, uint8 [N, *item_shape] to (logit [N], score [N]), as `traced_onnx` does."""
    example = torch.zeros(TRACED_BATCH, *item_shape, dtype=torch.uint8)
    return traced_onnx(module, example, input_name=input_name, output_names=("logit", "score"), free_axes=("N",))


def export_retinaface(network: nn.Module) -> onnx.ModelProto:
    """Trace the face detector's network, `deepscan.models.networks.retinaface.RetinaFace`, in evaluation mode.

    Returns:
        A graph from `pictures`, uint8 BGR [N, H, W, 3], to `boxes` [N, A, 4], `scores` [N, A] and `points` [N, A, 10],
        as `RetinaFace.forward` describes them; N, H and W are free.

    Raises:
        ModelError: the result is not valid ONNX.
    """
    example = torch.zeros(TRACED_BATCH, *TRACED_SIZE, 3, dtype=torch.uint8)
    axes = ("N", "H", "W")
    model = traced_onnx(network, example, input_name=INPUT_NAME, output_names=OUTPUT_NAMES, free_axes=axes)
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = "A"  # instead of the formula that computes it from H and W
    refuse_invalid(model)
    return model


def traced_onnx(
    module: nn.Module,
    example: torch.Tensor,
    *,
    input_name: str,
    output_names: Sequence[str],
    free_axes: Sequence[str],
) -> onnx.ModelProto:
    """Trace a module with one input in evaluation mode.

    The graph is simplified, but batch normalization stays, so that it holds the trained weights; runtimes fold them
    into the convolutions when they load the model.

    `free_axes` are the names of the first axes of the input, whose sizes stay free and are not 1 in the example.

    Raises:
        ModelError: the graph fixes the size of a free axis.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of missing packages that are not needed
    with torch_files_removed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[input_name],
            output_names=list(output_names),
            opset_version=OPSET,
            dynamic_shapes=({axis: torch.export.Dim(name, min=1) for axis, name in enumerate(free_axes)},),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    simplify(program.model)
    model: onnx.ModelProto = program.model_proto
    _strip_traces(model)
    for axis, name in zip(model.graph.input[0].type.tensor_type.shape.dim, free_axes, strict=False):
        if not axis.dim_param:
            raise ModelError(f"The exported graph fixes {name} to {axis.dim_value}: report this.")
    return model


def refuse_invalid(model: onnx.ModelProto) -> None:
    """Raise a ModelError if a finished graph is not valid ONNX."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"The exported graph is not valid ONNX ({error}): report this.") from error


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes about the Python source, which contain paths of this machine.

    The recorded shapes stay. They tell which free sizes are equal, which no runtime can infer past a Reshape with -1;
    ONNX Runtime needs this to keep its fast layout across the additions of lowered networks.
    """
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
