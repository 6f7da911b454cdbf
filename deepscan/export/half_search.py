"""Half precision wherever it does no harm: which nodes stay in float32 is measured, never written by hand."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import onnx

from deepscan.export.half import emulated, halved
from deepscan.export.half_fp32_nodes import behind_outputs, bridged, candidates, only_float, overflowing
from deepscan.export.half_graph import read_graph
from deepscan.export.parity.conversion import ConversionResult, Judge, Report
from deepscan.export.parity.parity import BUDGETS, Parity, misses
from deepscan.wording import counted

# For each float32 tensor of a graph that is no weight, the largest absolute value on real crops: `largest_values`.
RangesOf: TypeAlias = Callable[[onnx.ModelProto], Mapping[str, float]]

PARTS: Final = 8
# A judge call runs the graph over all samples of the gate.
MOST_CALLS: Final = 40
# Islands that are chosen by what they do on the samples do a little less on others.
SEARCH_SHARE: Final = 0.5


def half_precision(model: onnx.ModelProto, judge: Judge, ranges_of: RangesOf, report: Report) -> ConversionResult:
    """Convert a graph to float16, with float32 islands where float16 overflows or rounds too coarsely.

    First every node stays in float32 whose values come near the end of float16, see `overflowing`. If what then is
    judged, which is one call, exceeds the budget for fp16, the other nodes are divided, in their order, into eight
    parts. Each is judged alone in float16, and those that hurt most go to float32 until half the budget holds. Of
    these parts, whole ones, then halves, then halves of halves go back to float16 where half the budget holds still.
    After forty calls of the judge, what has not gone back stays in float32.

    Args:
        model: a float32 graph that keeps the artifact contract; not changed.
        judge: is given float32 graphs that round as `model` in float16 would, see `emulated`.
        ranges_of: how large the values inside become on real crops.
        report: is told what is being done.

    Returns:
        The float16 graph, and its emulation as the stand-in. Where the budget cannot be held it is the best of those
        that were judged, which the gate will refuse.
    """
    graph = read_graph(model)
    report("looking for values that float16 cannot hold")
    notes = only_float(graph) | behind_outputs(graph) | overflowing(graph, ranges_of(model))
    search = _Search(model, judge, report, bridge=lambda islands: bridged(graph, islands), fixed=frozenset(notes))
    notes |= search.run(candidates(graph, notes))
    islands = bridged(graph, notes.keys())
    notes |= dict.fromkeys(islands - notes.keys(), "hands values from one float32 node to another")
    ordered = {node.name: notes[node.name] for node in graph.nodes if node.name in islands}
    summary = (
        f"float16, with {len(ordered)} of {len(graph.nodes)} nodes in float32; the largest difference of a score is "
        f"{search.best_difference:.2g}, after {counted(search.calls, 'trial')}"
    )
    return ConversionResult(halved(model, islands), ordered, summary, stand_in=emulated(model, islands))


class _Search:
    """Looks for few nodes that, in float32, bring a graph into the budget."""

    def __init__(
        self,
        model: onnx.ModelProto,
        judge: Judge,
        report: Report,
        *,
        bridge: Callable[[frozenset[str]], frozenset[str]],
        fixed: frozenset[str],
    ) -> None:
        self.model = model
        self.judge = judge
        self.report = report
        self.bridge = bridge
        self.fixed = fixed
        self.calls = 0
        self.seen: dict[frozenset[str], Parity] = {}
        self.best_difference = math.inf

    def run(self, names: Sequence[str]) -> dict[str, str]:
        """Return which of these nodes, in their order, must be in float32 besides the fixed ones, and why."""
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
        fewest, most = 1, len(parts)
        while fewest < most:
            middle = (fewest + most) // 2
            if self.holds(_union(parts[:middle]), f"the {middle} worst of {len(parts)} parts in float32"):
                most = middle
            else:
                fewest = middle + 1
        chosen = parts[:fewest]
        if not self.holds(_union(chosen), f"the {fewest} worst of {len(parts)} parts in float32"):
            return self.best_of_failures(every)
        # What hurts least goes back first, and so gets what the budget has to spare.
        return self.shrunk(chosen[::-1])

    def shrunk(self, parts: Sequence[Sequence[str]]) -> dict[str, str]:
        """Return as few of the nodes of these parts as the budget needs, and why: whole parts first, then halves."""
        islands = _union(parts)
        notes: dict[str, str] = {}
        waiting = deque(parts)
        while waiting and self.calls < MOST_CALLS:
            part = waiting.popleft()
            fewer = islands - frozenset(part)
            if self.holds(fewer, f"{len(fewer)} of {len(islands)} nodes kept in float32"):
                islands = fewer
                continue
            others = f", with {len(part) - 1} beside it," if len(part) > 1 else ""
            notes |= dict.fromkeys(part, f"in float16{others} {_harm(self.seen[fewer])}")
            waiting.extend(_divided(part, 2) if len(part) > 1 else ())
        return {name: notes[name] for name in islands}

    def best_of_failures(self, every: frozenset[str]) -> dict[str, str]:
        """Return the islands with the smallest difference among those that leave something in float16."""
        tried = [islands for islands in self.seen if islands != every or not every]
        best = min(tried, key=lambda islands: _difference(self.seen[islands]))
        self.best_difference = _difference(self.seen[best])
        return dict.fromkeys(best, "the best of what was tried, though half the budget does not hold")

    def holds(self, islands: frozenset[str], what: str) -> bool:
        """Judge the graph with these islands, and keep the difference if half the budget holds."""
        parity = self.parity(islands, what)
        difference = _difference(parity)
        limit = BUDGETS["fp16"].max_difference
        within = not misses(parity, BUDGETS["fp16"]) and (limit is None or difference <= SEARCH_SHARE * limit)
        if within:
            self.best_difference = difference
        return within

    def parity(self, islands: frozenset[str], what: str) -> Parity:
        """Judge the graph with these islands and the fixed ones, once."""
        if islands not in self.seen:
            self.calls += 1
            self.seen[islands] = self.judge(emulated(self.model, self.bridge(self.fixed | islands)))
            self.report(f"{what}: the largest difference of a score is {self.seen[islands].max_difference:.2g}")
        return self.seen[islands]


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
