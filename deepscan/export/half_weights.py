"""Smaller files without any loss: float32 weights that are exact in float16 are stored in that."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deepscan.runtime.artifacts.artifacts import HALF_SUFFIX


def store_exact_halves(model: onnx.ModelProto) -> int:
    """Store as float16, and widen on load, every float32 tensor whose values all survive that unchanged.

    Runtimes fold the widening into a constant when they load the model, so arithmetic and results stay the same.

    Args:
        model: changed in place.

    Returns:
        How many tensors were changed.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}{HALF_SUFFIX}"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"widen {name}", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(casts)
