"""Which nodes must stay in float32 by what is known before anything is judged, and which ones follow from others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
from onnx import NodeProto

from deepscan.export.half_graph import MOVES, SHAPES_ONLY, FloatGraph

LARGEST_HALF: Final = 65504.0
# Other crops than those looked at may give larger values, and beyond the end of float16 there is no gradual loss. In
# four networks, no tensor reached more than twice on 112 other crops what it had reached on 16; this is twice that.
HEADROOM: Final = 4.0
MEANS: Final = frozenset({"ReduceMean", "GlobalAveragePool"})


def only_float(graph: FloatGraph) -> dict[str, str]:
    """Return the nodes that ONNX does not define for float16, with the reason."""
    known = graph.shapes.keys() | graph.weights.keys()
    return {
        node.name: f"ONNX has no {node.op_type} in float16"
        for node, places in zip(graph.nodes, graph.places, strict=True)
        if not places and node.op_type not in SHAPES_ONLY and known & {*node.input, *node.output}
    }


def behind_outputs(graph: FloatGraph) -> dict[str, str]:
    """Return the nodes that need nothing but an output of the graph, such as those from the logit to the score.

    Outputs are float32 by contract, so in float16 these nodes would need casts in front and behind.
    """
    outputs = {output.name for output in graph.model.graph.output}
    behind = set(outputs)
    found = {}
    for node in graph.nodes:
        computed = {name for name in node.input if name in graph.shapes}
        if computed and computed <= behind:
            behind.update(node.output)
            found[node.name] = "needs only an output of the graph, which is float32"
    return found


def overflowing(graph: FloatGraph, largest: Mapping[str, float]) -> dict[str, str]:
    """Return the nodes that take or give values near the end of float16, with what they reach.

    A weight may use all of float16's range, other values a quarter of it. Of means, which some kernels compute from a
    sum in float16, the sum counts.

    Args:
        graph: the float32 graph.
        largest: for each of its tensors the largest absolute value on real crops.
    """
    found = {}
    for node, places in zip(graph.nodes, graph.places, strict=True):
        tensors = [node.input[i] for i in places.inputs] + [node.output[i] for i in places.outputs]
        reached = max((largest[name] for name in tensors if name in graph.shapes), default=0.0)
        weight = max((_largest_weight(graph, name) for name in tensors if name in graph.weights), default=0.0)
        total = largest[node.output[0]] * _count(graph, node) if 0 in places.inputs and node.op_type in MEANS else 0.0
        if reached > LARGEST_HALF / HEADROOM:
            found[node.name] = f"values reach {reached:.2g}"
        elif weight > LARGEST_HALF:
            found[node.name] = f"a weight is {weight:.2g}"
        elif total > LARGEST_HALF / HEADROOM:
            found[node.name] = f"sums reach {total:.2g}"
    return found


def _largest_weight(graph: FloatGraph, name: str) -> float:
    values = graph.weights[name]
    finite = np.abs(values[np.isfinite(values)])  # what is infinite already does not overflow
    return float(finite.max()) if finite.size else 0.0


def _count(graph: FloatGraph, node: NodeProto) -> float:
    """Return over how many values a mean is taken; the batch, which is free, is not among them."""
    before, after = (math.prod(size or 1 for size in graph.shapes[name]) for name in (node.input[0], node.output[0]))
    return before / after


def candidates(graph: FloatGraph, others: Collection[str]) -> list[str]:
    """Return, in order, the nodes whose results float16 rounds, but for `others`."""
    return [
        node.name
        for node, places in zip(graph.nodes, graph.places, strict=True)
        if places.outputs and node.op_type not in MOVES and node.name not in others
    ]


def bridged(graph: FloatGraph, islands: Collection[str]) -> frozenset[str]:
    """Add to islands the nodes that only move values and lie on a way from one island to another.

    In float16 they would stand between two casts, and the first would round what the islands are there to keep. A way
    may also begin at a node that makes floating-point values of others, such as the pixels.
    """
    sources = {node.name for node in graph.nodes if _makes_floats(graph, node)}
    movers = {
        node.name
        for node, places in zip(graph.nodes, graph.places, strict=True)
        if places and (node.op_type in MOVES or node.name in sources)
    }
    after = _reached(graph.nodes, movers, {*islands, *sources}, forwards=True)
    before = _reached(graph.nodes[::-1], movers, islands, forwards=False)
    return frozenset(islands) | ((after | (movers & sources)) & before)


def _makes_floats(graph: FloatGraph, node: NodeProto) -> bool:
    known = graph.shapes.keys() | graph.weights.keys()
    return known.isdisjoint(node.input) and not known.isdisjoint(node.output)


def _reached(nodes: list[NodeProto], movers: set[str], starts: Collection[str], *, forwards: bool) -> set[str]:
    """Return the movers that values come to from the starts, or, with the nodes in reverse order, go from to them."""
    found: set[str] = set()
    tensors: set[str] = set()
    for node in nodes:
        came_by, goes_by = (node.input, node.output) if forwards else (node.output, node.input)
        if node.name in starts:
            tensors.update(goes_by)
        elif node.name in movers and not tensors.isdisjoint(came_by):
            found.add(node.name)
            tensors.update(goes_by)
    return found
