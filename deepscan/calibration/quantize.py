"""From a float32 graph to one in 8 bits whose scores hold: ranges, quantization, and what is left out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from deepscan.calibration.fp32_layers import Group, left_out
from deepscan.calibration.graph_reading import Reading, read_graph
from deepscan.calibration.item_reader import ItemReader
from deepscan.calibration.observing import observed
from deepscan.calibration.placement import placed, quantizable
from deepscan.calibration.qdq import with_qdq
from deepscan.calibration.ranges import resolve_range
from deepscan.calibration.scales import Range
from deepscan.errors import ModelError
from deepscan.export.parity.conversion import ConversionResult, Judge, Report
from deepscan.export.parity.parity import BUDGETS, misses
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import cpu_count
from deepscan.wording import counted

# On so many batches the effect of single nodes is measured.
EFFECT_BATCHES: Final = 2


def quantized(
    model: onnx.ModelProto,
    judge: Judge,
    report: Report,
    *,
    items: NDArray[np.uint8],
    method: CalibrationMethod,
    activations: Activations,
    seed: int,
) -> ConversionResult:
    """Quantize a graph to 8 bits, except for the nodes that hurt so much that the scores would not hold.

    Everything is quantized first. If the judge finds that too much, the nodes that move the logit most when they alone
    are in 8 bits are left in float32, as few as the budget for int8 allows; see `left_out`. Nothing is special by its
    place: the first and the last layer are measured like all others.

    The same arguments give the same graph, bit for bit, on the same machine.

    Args:
        model: a float32 graph that keeps the artifact contract, with batch normalization folded; not changed.
        judge: compares a graph with the original over real crops.
        report: is told what is being done.
        items: real crops [M, H, W, 3] or clips [M, T, H, W, 3], RGB uint8, to find the ranges with.
        method: how a range is chosen from what was seen.
        activations: `affine` for CPUs, `symmetric` for TensorRT.
        seed: of the items' order.

    Raises:
        UsageError: there are no items.
        ModelError: the graph has nothing to quantize, or values that are not finite.
    """
    reader = ItemReader(items, seed=seed)
    reading = read_graph(model)
    search = _Search(reading, reader, judge, report, method=method, activations=activations)
    groups = left_out(search.nodes, search.effect, search.holds)
    names = [name for group in groups or () for name in group.nodes]
    return ConversionResult(search.graph(search.without(names)), _notes(groups or ()), search.summary(groups))


class _Search:
    """Makes and measures graphs with some nodes in 8 bits."""

    def __init__(
        self,
        reading: Reading,
        reader: ItemReader,
        judge: Judge,
        report: Report,
        *,
        method: CalibrationMethod,
        activations: Activations,
    ) -> None:
        self.reading, self.reader, self.judge, self.report = reading, reader, judge, report
        self.method, self.activations = method, activations
        self.nodes = quantizable(reading, activations)
        if not self.nodes:
            raise ModelError("The graph has no layer that could compute in 8 bits: export it in another precision.")
        self.ranges = self._ranges()
        self.probes = reader.first(EFFECT_BATCHES * reader.batch)
        self.exact: NDArray[np.float32] | None = None
        self.differences: dict[tuple[str, ...], float] = {}

    def _ranges(self) -> Mapping[str, Range]:
        # One node more or less can make other tensors' integers unnecessary, but never needs others.
        roots = sorted(set(placed(self.reading, self.nodes, self.activations).roots.values()))
        self.report(
            f"finding the ranges of {len(roots)} tensors on {counted(len(self.reader), 'item')} ({self.method})"
        )
        seen = observed(self.reading, roots, self.reader, with_magnitudes=self.method != "minmax")
        return {name: resolve_range(seen[name], self.method, self.activations) for name in roots}

    def graph(self, nodes: Sequence[str]) -> onnx.ModelProto:
        """Return the graph with these nodes in 8 bits."""
        placement = placed(self.reading, nodes, self.activations)
        return with_qdq(self.reading, placement, self.ranges, self.activations)

    def without(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return all nodes but these, in the order of the graph."""
        gone = set(names)
        return tuple(name for name in self.nodes if name not in gone)

    def holds(self, names: Sequence[str]) -> bool:
        """Ask the judge whether the scores hold with these nodes left out."""
        parity = self.judge(self.graph(self.without(names)))
        self.differences[tuple(names)] = parity.mean_difference
        kept = (
            f"{len(names)} of {len(self.nodes)} nodes in float32" if names else f"all {len(self.nodes)} nodes in int8"
        )
        self.report(f"{kept}: mean difference of the scores {parity.mean_difference:.2g}")
        return not misses(parity, BUDGETS["int8"])

    def effect(self, names: Sequence[str]) -> float:
        """Return by how much the logit moves, on average over a few items, when these nodes alone are in 8 bits."""
        if self.exact is None:
            self.report(f"looking for the nodes that hurt most, on {counted(len(self.probes), 'item')}")
            self.exact = self._logits(self.reading.model)
        return float(np.abs(self._logits(self.graph(names)) - self.exact).mean())

    def _logits(self, model: onnx.ModelProto) -> NDArray[np.float32]:
        name = model.graph.input[0].name
        session = Session(model.SerializeToString(), source="the quantized graph", device="cpu", threads=cpu_count())
        return np.concatenate([session.run(["logit"], {name: batch})[0] for batch in self.probes])

    def summary(self, groups: Sequence[Group] | None) -> str:
        """Say what was made, in one line for people."""
        names = [name for group in groups or () for name in group.nodes]
        parts = [
            f"int8 ({self.activations}, {self.method} over {counted(len(self.reader), 'item')})",
            f"{len(self.nodes) - len(names)} of {len(self.nodes)} nodes",
            f"mean difference of the scores {self.differences[tuple(names)]:.2g}",
        ]
        if groups is None:
            parts.append(f"no choice of nodes would keep it below {BUDGETS['int8'].mean_difference}")
        return ", ".join(parts)


def _notes(groups: Sequence[Group]) -> dict[str, str]:
    notes = {}
    for group in groups:
        beside = f" with {len(group.nodes) - 1} beside it" if len(group.nodes) > 1 else ""
        for name in group.nodes:
            notes[name] = f"alone{beside} in 8 bits it moves the logit by {group.effect:.2g} on average"
    return notes
