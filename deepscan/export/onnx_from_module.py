"""From a torch module to a checked ONNX graph with a dynamic batch."""

from __future__ import annotations

import logging
import warnings
from typing import Final

import onnx
import onnxscript.optimizer
import torch
from torch import nn

from deepscan.errors import ModelError

OPSET: Final = 18
# Traced with more than one item, so that nothing of the batch size is baked in.
TRACED_BATCH: Final = 2


def onnx_from_module(module: nn.Module, item_shape: tuple[int, ...], *, input_name: str) -> onnx.ModelProto:
    """Trace a module in evaluation mode.

    Constants are folded, but batch normalisation stays as it is: its weights then remain the ones that were trained,
    and the runtime folds them into the convolutions when it loads the model.

    Args:
        module: takes uint8 [N, *item_shape] and returns (logit [N], score [N]).
        item_shape: without the batch.
        input_name: `faces` or `clips`.

    Raises:
        ModelError: the result is not valid ONNX.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports packages that are not needed
    example = torch.zeros(TRACED_BATCH, *item_shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[input_name],
            output_names=["logit", "score"],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    onnxscript.optimizer.fold_constants(program.model, onnx_shape_inference=True)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    model: onnx.ModelProto = program.model_proto
    _strip_traces(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"The exported graph is not valid ONNX ({error}): report this.") from error
    return model


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about the Python source: it holds paths of the machine it ran on."""
    del model.graph.value_info[:]
    for holder in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
        holder.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
