"""How large the values inside a graph become on real crops."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deepscan.export.half_graph import read_graph
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import cpu_count

# Of tensors that one run may have to keep until they have been looked at; larger graphs are run several times.
KEPT_BYTES: Final = 1 << 30
FLOAT_BYTES: Final = 4


def largest_values(
    model: onnx.ModelProto, items: NDArray[np.uint8], *, kept_bytes: int = KEPT_BYTES
) -> dict[str, float]:
    """Run a float32 graph over crops or clips, one by one, and return how large each of its tensors becomes.

    Args:
        model: an artifact's graph.
        items: uint8 [M, *item_shape], at least one.
        kept_bytes: how much memory the tensors that are looked at in one run may take.

    Returns:
        For each float32 tensor that is no weight the largest absolute value. ONNX Runtime's maximum skips what is not
        a number.
    """
    sizes = _bytes_of_one(model)
    largest: dict[str, float] = {}
    for names in grouped(sizes, kept_bytes):
        largest.update(zip(names, _largest_of(model, names, items), strict=True))
    return largest


def _bytes_of_one(model: onnx.ModelProto) -> dict[str, int]:
    """Return the size of each float32 tensor that is no weight, for a batch of one."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    single.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shapes = read_graph(single).shapes
    return {name: FLOAT_BYTES * math.prod(size or 1 for size in shape) for name, shape in shapes.items()}


def _largest_of(model: onnx.ModelProto, names: list[str], items: NDArray[np.uint8]) -> list[float]:
    session = Session(_probed(model, names), source=model.graph.name, device="cpu", threads=cpu_count())
    probes = [f"{name}.largest" for name in names]
    found = np.array([session.run(probes, {model.graph.input[0].name: item[np.newaxis]}) for item in items])
    return [float(value) for value in found.max(axis=0)]


def grouped(sizes: dict[str, int], limit: int) -> list[list[str]]:
    """Divide tensors, in the order of the graph, into groups of at most so many bytes; a larger one stands alone."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups


def _probed(model: onnx.ModelProto, names: list[str]) -> bytes:
    """Add an output for each of the tensors: its largest absolute value."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    # ONNX Runtime visits the last nodes first and what they need before them. So, with the graph's first tensor at the
    # end, most tensors are looked at, and given back, as soon as they are there.
    for name in reversed(names):
        size, largest = f"{name}.size", f"{name}.largest"
        probed.graph.node.append(helper.make_node("Abs", [name], [size]))
        probed.graph.node.append(helper.make_node("ReduceMax", [size], [largest], keepdims=0))
        probed.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    return bytes(probed.SerializeToString())
