"""From the face detector's network to an ONNX graph that takes pictures of any number and size."""

from __future__ import annotations

from typing import Final

import onnx
import torch
from torch import nn

from deepscan.export.onnx_from_module import TRACED_BATCH, refuse_invalid, traced_onnx
from deepscan.runtime.faces.retinaface import INPUT_NAME, OUTPUT_NAMES

# Traced with sides that no stride divides and that differ, so that nothing of the size is baked in.
TRACED_SIZE: Final = (171, 235)


def export_retinaface(network: nn.Module) -> onnx.ModelProto:
    """Trace the network in evaluation mode.

    Args:
        network: `deepscan.models.retinaface.RetinaFace`.

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
        output.type.tensor_type.shape.dim[1].dim_param = "A"  # instead of the formula that gives it from H and W
    refuse_invalid(model)
    return model
