"""Quantization of a float32 graph to 8 bits, within the budget for int8."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from deepscan.calibration.placement import placed, quantizable
from deepscan.calibration.qdq import with_qdq
from deepscan.calibration.ranges import ItemReader, observe, resolve_range
from deepscan.calibration.sensitivity import Group, nodes_for_fp32
from deepscan.errors import ModelError
from deepscan.export.parity.parity import BUDGETS, ConversionResult, ParityFunction, misses
from deepscan.export.tensor_values import Range
from deepscan.runtime.artifacts.artifacts import Activations, CalibrationMethod
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.system.machine import cpu_count
from deepscan.wording import counted

log = logging.getLogger(__name__)

# Batches on which the effect of single nodes is measured.
EFFECT_BATCHES: Final = 2


def quantized(
    model: onnx.ModelProto,
    check: ParityFunction,
    *,
    items: NDArray[np.uint8],
    method: CalibrationMethod,
    activations: Activations,
    seed: int,
) -> ConversionResult:
    """Quantize a graph to 8 bits, except for the nodes with which it would exceed the budget for int8.

    Everything is quantized first. If that exceeds the budget, the nodes that move the logit most when they alone are in
    8 bits stay in float32, as few as the budget allows; see `nodes_for_fp32`. No node is special by its place: the
    first and the last layer are measured like all others.

    The same arguments give the same graph, bit for bit, on the same machine. Batch normalization must be folded. The
    ranges are found with real crops [M, H, W, 3] or clips [M, T, H, W, 3], RGB uint8, in an order given by the seed.
    Activations are `affine` for CPUs, and `symmetric` for TensorRT.

    Raises:
        UsageError: there are no items.
        ModelError: the graph has nothing to quantize, or values that are not finite.
    """
    reader = ItemReader(items, seed=seed)
    search = _Search(GraphIndex(model), reader, check, method=method, activations=activations)
    groups = nodes_for_fp32(search.nodes, search.effect, search.holds)
    names = [name for group in groups or () for name in group.nodes]
    return ConversionResult(search.graph(search.without(names)), _notes(groups or ()), search.summary(groups))


class _Search:
    """Builds and measures graphs with some nodes in 8 bits."""

    def __init__(
        self,
        index: GraphIndex,
        reader: ItemReader,
        check: ParityFunction,
        *,
        method: CalibrationMethod,
        activations: Activations,
    ) -> None:
        self.index, self.reader, self.check = index, reader, check
        self.method, self.activations = method, activations
        self.nodes = quantizable(index, activations)
        if not self.nodes:
            raise ModelError("The graph has no layer that could compute in 8 bits: export it in another precision.")
        self.ranges = self._ranges()
        self.probes = list(islice(reader, EFFECT_BATCHES))
        self.differences: dict[tuple[str, ...], float] = {}

    def _ranges(self) -> dict[str, Range]:
        # With fewer nodes in 8 bits, fewer tensors may be quantized, but never others.
        roots = sorted(set(placed(self.index, self.nodes, self.activations).roots.values()))
        log.info(
            "finding the ranges of %d tensors on %s (%s)", len(roots), counted(len(self.reader), "item"), self.method
        )
        seen = observe(self.index, roots, self.reader, with_magnitudes=self.method != "minmax")
        return {name: resolve_range(seen[name], self.method, self.activations) for name in roots}

    def graph(self, nodes: Sequence[str]) -> onnx.ModelProto:
        """Return the graph with these nodes in 8 bits."""
        placement = placed(self.index, nodes, self.activations)
        return with_qdq(self.index, placement, self.ranges, self.activations)

    def without(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return all nodes but these, in the order of the graph."""
        gone = set(names)
        return tuple(name for name in self.nodes if name not in gone)

    def holds(self, names: Sequence[str]) -> bool:
        """Tell whether the budget holds with these nodes in float32."""
        parity = self.check(self.graph(self.without(names)))
        self.differences[tuple(names)] = parity.mean_difference
        kept = (
            f"{len(names)} of {len(self.nodes)} nodes in float32" if names else f"all {len(self.nodes)} nodes in int8"
        )
        log.info("%s: mean difference of the scores %.2g", kept, parity.mean_difference)
        return not misses(parity, BUDGETS["int8"])

    def effect(self, names: Sequence[str]) -> float:
        """Return how far the logit moves, on average over a few items, when these nodes alone are in 8 bits."""
        return float(np.abs(self._logits(self.graph(names)) - self.exact).mean())

    @cached_property
    def exact(self) -> NDArray[np.float32]:
        """Logits of the float32 graph on a few items."""
        log.info("looking for the most sensitive nodes, on %s", counted(sum(map(len, self.probes)), "item"))
        return self._logits(self.index.model)

    def _logits(self, model: onnx.ModelProto) -> NDArray[np.float32]:
        name = model.graph.input[0].name
        session = Session(model.SerializeToString(), source="the quantized graph", device="cpu", threads=cpu_count())
        return np.concatenate([session.run(["logit"], {name: batch})[0] for batch in self.probes])

    def summary(self, groups: Sequence[Group] | None) -> str:
        """Describe the result in one line."""
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
