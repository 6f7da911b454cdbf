"""Layer sensitivity: the nodes that must stay in float32, found with few runs of the graph and fewer parity checks.

Nodes are names, in the order of the graph; nothing here depends on ONNX.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

# A parity check runs over all samples; an effect is measured on a few items.
MOST_CHECKS: Final = 12
MOST_RUNS: Final = 48

# Returns how much the logit moves when some nodes alone are in 8 bits.
Effect: TypeAlias = Callable[[Sequence[str]], float]
# Returns whether the budget holds with some nodes in float32.
Holds: TypeAlias = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive nodes, and the change of the logit when they alone are in 8 bits."""

    nodes: tuple[str, ...]
    effect: float


def nodes_for_fp32(nodes: Sequence[str], effect: Effect, holds: Holds) -> tuple[Group, ...] | None:
    """Find a small set of nodes with which, in float32, the budget holds.

    Twice as many of the most sensitive nodes go to float32 each time until the budget holds; then as many as possible
    return to 8 bits, the least sensitive first. There are at most MOST_CHECKS parity checks (`holds`), and MOST_RUNS
    calls of `effect`.

    Returns:
        The nodes to keep in float32, the most sensitive first; empty if the budget holds without any; None if it does
        not hold with any node in 8 bits.
    """
    if holds(()):
        return ()
    ordered = most_sensitive_first(nodes, effect)
    chosen: list[Group] = []
    fails, checks = 0, 1
    while checks < MOST_CHECKS:
        chosen.extend(islice(ordered, max(1, len(chosen))))
        names = _names(chosen)
        if len(names) == len(nodes):
            return None
        checks += 1
        if holds(names):
            break
        fails = len(chosen)
    else:
        return None
    enough = len(chosen)
    while enough - fails > 1 and checks < MOST_CHECKS:
        middle = (fails + enough) // 2
        checks += 1
        if holds(_names(chosen[:middle])):
            enough = middle
        else:
            fails = middle
    return tuple(chosen[:enough])


def most_sensitive_first(nodes: Sequence[str], effect: Effect) -> Iterator[Group]:
    """Yield nodes by their effect on the logit, without measuring each of them.

    A group with a large effect is measured half by half, the largest first, until it is a single node; groups with a
    small effect are never divided. After MOST_RUNS measurements, groups come out as they are.
    """
    # The place in the graph decides between equals.
    waiting: list[tuple[float, int, Group]] = [(-float("inf"), 0, Group(tuple(nodes), float("inf")))]
    runs = 0
    while waiting:
        _, place, group = heapq.heappop(waiting)
        if len(group.nodes) == 1 or runs + 2 > MOST_RUNS:
            yield group
            continue
        half = len(group.nodes) // 2
        for start, part in ((place, group.nodes[:half]), (place + half, group.nodes[half:])):
            measured = effect(part)
            heapq.heappush(waiting, (-measured, start, Group(part, measured)))
        runs += 2


def _names(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(name for group in groups for name in group.nodes)
