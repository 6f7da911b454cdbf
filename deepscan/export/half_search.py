"""Half precision within the parity budget: the nodes that stay in float32 are found by measurement."""

from __future__ import annotations

import itertools
import logging
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from deepscan.export.half import EXACT_OPS, SHAPE_OPS, emulated, half_places, halved
from deepscan.export.parity.parity import BUDGETS, ConversionResult, Parity, ParityFunction, misses
from deepscan.export.tensor_values import SlicedGraph
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.wording import counted

log = logging.getLogger(__name__)

LARGEST_HALF: Final = 65504.0
# Other crops may give larger values than the measured ones, and float16 overflows without a gradual loss. In four
# networks, no tensor reached more than twice its value on 16 crops on 112 others; this is twice that factor.
HEADROOM: Final = 4.0
MEANS: Final = frozenset({"ReduceMean", "GlobalAveragePool"})
PARTS: Final = 8
# Each parity check runs the graph over all samples.
MOST_CALLS: Final = 40
# Nodes are chosen by their effect on the samples, and have less effect on others.
SEARCH_SHARE: Final = 0.5


def half_precision(model: onnx.ModelProto, check: ParityFunction, items: NDArray[np.uint8]) -> ConversionResult:
    """Convert a float32 graph to float16, with float32 nodes where float16 overflows or rounds too coarsely.

    First, every node whose values come near the limit of float16 stays in float32, see `overflowing`. If that graph
    exceeds the budget for fp16, the other nodes are divided, in order, into eight parts. Each part is checked alone in
    float16, and the parts with the largest differences go to float32 until half the budget holds. Of these, whole
    parts, then ever smaller halves, return to float16 if half the budget still holds. Forty checks are the limit.

    The check gets float32 graphs that round as float16 would, see `emulated`; the values inside the graph are measured
    on real crops or clips, uint8 [M, *item_shape].

    Returns:
        The float16 graph, with its emulation as the stand-in. If no graph keeps the budget, it is the best of those
        that were checked, which the export will refuse.
    """
    index = GraphIndex(model)
    log.info("looking for values that float16 cannot hold")
    notes = only_float(index) | behind_outputs(index) | overflowing(index, largest_values(index, items))
    search = _Search(index, check, fixed=frozenset(notes))
    notes |= search.run(candidates(index, notes))
    fp32_nodes = bridged(index, notes.keys())
    notes |= dict.fromkeys(fp32_nodes - notes.keys(), "hands values from one float32 node to another")
    ordered = {node.name: notes[node.name] for node in index.nodes if node.name in fp32_nodes}
    summary = (
        f"float16, with {len(ordered)} of {len(index.nodes)} nodes in float32; the largest difference of a score is "
        f"{search.best_difference:.2g}, after {counted(search.calls, 'trial')}"
    )
    return ConversionResult(halved(index, fp32_nodes), ordered, summary, stand_in=emulated(index, fp32_nodes))


def largest_values(index: GraphIndex, items: NDArray[np.uint8]) -> dict[str, float]:
    """Run a float32 graph over crops or clips, one by one, and return the largest magnitude of each variable tensor."""
    extremes = SlicedGraph(index, index.floats, batch=1).extremes(item[np.newaxis] for item in items)
    return {name: found.magnitude for name, found in extremes.items()}


class _Search:
    """Search for a small set of nodes that, in float32, bring a graph into the budget."""

    def __init__(self, index: GraphIndex, check: ParityFunction, *, fixed: frozenset[str]) -> None:
        self.index = index
        self.check = check
        self.fixed = fixed
        self.calls = 0
        self.seen: dict[frozenset[str], Parity] = {}
        self.best_difference = math.inf

    def run(self, names: Sequence[str]) -> dict[str, str]:
        """Return those of these nodes that must stay in float32 besides the fixed ones, with the reasons."""
        every = frozenset(names)
        if not misses(self.parity(frozenset(), "as much in float16 as values allow"), BUDGETS["fp16"]):
            self.best_difference = _difference(self.seen[frozenset()])
            return {}
        if not every:
            return self.best_of_failures(every)
        parts = [part for part in _divided(names, PARTS) if part]
        alone = [
            _difference(self.parity(every - frozenset(part), f"part {number} of {len(parts)} alone in float16"))
            for number, part in enumerate(parts, 1)
        ]
        parts = [parts[place] for place in sorted(range(len(parts)), key=lambda place: -alone[place])]

        def enough(count: int) -> bool:
            return self.holds(_union(parts[:count]), f"the {count} worst of {len(parts)} parts in float32")

        fewest = 1 + bisect_left(range(1, len(parts)), True, key=enough)
        if not enough(fewest):
            return self.best_of_failures(every)
        # The least harmful parts return first, and so use what the budget allows.
        return self.shrunk(parts[:fewest][::-1])

    def shrunk(self, parts: Sequence[Sequence[str]]) -> dict[str, str]:
        """Return as few nodes of these parts as possible, with the reasons: first whole parts return, then halves."""
        fp32_nodes = _union(parts)
        notes: dict[str, str] = {}
        waiting = deque(parts)
        while waiting and self.calls < MOST_CALLS:
            part = waiting.popleft()
            fewer = fp32_nodes - frozenset(part)
            if self.holds(fewer, f"{len(fewer)} of {len(fp32_nodes)} nodes kept in float32"):
                fp32_nodes = fewer
                continue
            others = f", with {len(part) - 1} beside it," if len(part) > 1 else ""
            notes |= dict.fromkeys(part, f"in float16{others} {_harm(self.seen[fewer])}")
            waiting.extend(_divided(part, 2) if len(part) > 1 else ())
        return {name: notes[name] for name in fp32_nodes}

    def best_of_failures(self, every: frozenset[str]) -> dict[str, str]:
        """Return the float32 nodes with the smallest difference among those that leave something in float16."""
        tried = [fp32_nodes for fp32_nodes in self.seen if fp32_nodes != every or not every]
        best = min(tried, key=lambda fp32_nodes: _difference(self.seen[fp32_nodes]))
        self.best_difference = _difference(self.seen[best])
        return dict.fromkeys(best, "the best of what was tried, though half the budget does not hold")

    def holds(self, fp32_nodes: frozenset[str], what: str) -> bool:
        """Check the graph with these nodes in float32, and keep the difference if half the budget holds."""
        parity = self.parity(fp32_nodes, what)
        difference = _difference(parity)
        limit = BUDGETS["fp16"].max_difference
        within = not misses(parity, BUDGETS["fp16"]) and (limit is None or difference <= SEARCH_SHARE * limit)
        if within:
            self.best_difference = difference
        return within

    def parity(self, fp32_nodes: frozenset[str], what: str) -> Parity:
        """Check the graph with these nodes and the fixed ones in float32, once."""
        if fp32_nodes not in self.seen:
            self.calls += 1
            graph = emulated(self.index, bridged(self.index, self.fixed | fp32_nodes))
            self.seen[fp32_nodes] = self.check(graph)
            log.info("%s: the largest difference of a score is %.2g", what, self.seen[fp32_nodes].max_difference)
        return self.seen[fp32_nodes]


def _difference(parity: Parity) -> float:
    finite = math.isfinite(parity.max_difference) and math.isfinite(parity.max_logit_difference)
    return parity.max_difference if finite else math.inf


def _harm(parity: Parity) -> str:
    if not math.isfinite(_difference(parity)):
        return "it makes logits that are no finite numbers"
    change = counted(len(parity.flips), "label changes", "labels change")
    flips = f", and {change}" if parity.flips else ""
    return f"it changes scores by up to {parity.max_difference:.2g}{flips}"


def _divided(names: Sequence[str], count: int) -> list[Sequence[str]]:
    """Divide a sequence into parts whose lengths differ by one at most."""
    ends = [len(names) * number // count for number in range(count + 1)]
    return [names[start:end] for start, end in itertools.pairwise(ends)]


def _union(parts: Sequence[Sequence[str]]) -> frozenset[str]:
    return frozenset(name for part in parts for name in part)


def only_float(graph: GraphIndex) -> dict[str, str]:
    """Return the nodes that ONNX does not define for float16, with the reason."""
    known = graph.floats | graph.weights.keys()
    return {
        node.name: f"ONNX has no {node.op_type} in float16"
        for node, places in zip(graph.nodes, half_places(graph), strict=True)
        if not places and node.op_type not in SHAPE_OPS and known & {*node.input, *node.output}
    }


def behind_outputs(graph: GraphIndex) -> dict[str, str]:
    """Return the nodes that read nothing but an output of the graph, such as those from the logit to the score.

    Outputs are float32 by contract, so in float16 these nodes would need casts in front and behind.
    """
    outputs = {output.name for output in graph.model.graph.output}
    behind = set(outputs)
    found = {}
    for node in graph.nodes:
        computed = {name for name in node.input if name in graph.floats}
        if computed and computed <= behind:
            behind.update(node.output)
            found[node.name] = "needs only an output of the graph, which is float32"
    return found


def overflowing(graph: GraphIndex, largest: Mapping[str, float]) -> dict[str, str]:
    """Return the nodes that read or write values near the limit of float16, with the values.

    Weights may use the whole range of float16, other values a quarter. For means, which some kernels compute from a sum
    in float16, the sum counts. `largest` holds the largest absolute value of each tensor on real crops.
    """
    found = {}
    for node, places in zip(graph.nodes, half_places(graph), strict=True):
        tensors = [node.input[i] for i in places.inputs] + [node.output[i] for i in places.outputs]
        reached = max((largest[name] for name in tensors if name in graph.floats), default=0.0)
        weight = max((_largest_weight(graph, name) for name in tensors if name in graph.weights), default=0.0)
        total = largest[node.output[0]] * _count(graph, node) if 0 in places.inputs and node.op_type in MEANS else 0.0
        if reached > LARGEST_HALF / HEADROOM:
            found[node.name] = f"values reach {reached:.2g}"
        elif weight > LARGEST_HALF:
            found[node.name] = f"a weight is {weight:.2g}"
        elif total > LARGEST_HALF / HEADROOM:
            found[node.name] = f"sums reach {total:.2g}"
    return found


def _largest_weight(graph: GraphIndex, name: str) -> float:
    values = graph.weights[name]
    finite = np.abs(values[np.isfinite(values)])  # infinite weights cannot overflow further
    return float(finite.max()) if finite.size else 0.0


def _count(graph: GraphIndex, node: NodeProto) -> float:
    """Return the number of values that a mean is taken over, without the free batch."""
    return graph.nbytes(node.input[0]) / graph.nbytes(node.output[0])


def candidates(graph: GraphIndex, others: Collection[str]) -> list[str]:
    """Return, in order, the nodes whose results float16 rounds, without `others`."""
    return [
        node.name
        for node, places in zip(graph.nodes, half_places(graph), strict=True)
        if places.outputs and node.op_type not in EXACT_OPS and node.name not in others
    ]


def bridged(graph: GraphIndex, fp32_nodes: Collection[str]) -> frozenset[str]:
    """Add to float32 nodes the exact ones, see `EXACT_OPS`, on paths from one float32 node to another.

    In float16 they would lie between two casts, the first of which would lose the precision of the float32 nodes. A
    path may also begin at a node that converts other values, such as pixels, to floating-point ones.
    """
    sources = {node.name for node in graph.nodes if _makes_floats(graph, node)}
    movers = {
        node.name
        for node, places in zip(graph.nodes, half_places(graph), strict=True)
        if places and (node.op_type in EXACT_OPS or node.name in sources)
    }
    after = _reached(graph.nodes, movers, {*fp32_nodes, *sources}, forwards=True)
    before = _reached(graph.nodes[::-1], movers, fp32_nodes, forwards=False)
    return frozenset(fp32_nodes) | ((after | (movers & sources)) & before)


def _makes_floats(graph: GraphIndex, node: NodeProto) -> bool:
    known = graph.floats | graph.weights.keys()
    return known.isdisjoint(node.input) and not known.isdisjoint(node.output)


def _reached(nodes: list[NodeProto], movers: set[str], starts: Collection[str], *, forwards: bool) -> set[str]:
    """Return the movers that values of the starts reach; in reverse order of nodes, those whose values reach them."""
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
