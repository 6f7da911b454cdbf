"""Which nodes must stay in float32: those that hurt most, found with few runs of the graph and fewer of the judge.

It knows nothing of graphs: nodes are names, in the order of the graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

# The judge looks at all samples of the parity gate; an effect is measured on a few items.
MOST_TRIALS: Final = 12
MOST_RUNS: Final = 48

# How much some nodes hurt when they alone are in 8 bits.
Effect: TypeAlias = Callable[[Sequence[str]], float]
# Whether the budget holds when some nodes are left out.
Holds: TypeAlias = Callable[[Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that lie one behind another, and how much they hurt when they alone are in 8 bits."""

    nodes: tuple[str, ...]
    effect: float


def left_out(nodes: Sequence[str], effect: Effect, holds: Holds) -> tuple[Group, ...] | None:
    """Find few nodes without which the budget holds.

    Twice as many of the worst are left out each time until the budget holds; then as many as possible are taken back,
    the least bad first. The judge is asked MOST_TRIALS times at most.

    Args:
        nodes: all that can be in 8 bits.
        effect: is asked MOST_RUNS times at most, see `worst_first`.
        holds: asks the judge.

    Returns:
        What to leave out, the worst first; nothing where that holds; None where the budget holds only with nothing in
        8 bits, or not even then.
    """
    if holds(()):
        return ()
    worst = worst_first(nodes, effect)
    chosen: list[Group] = []
    fails, trials = 0, 1
    while trials < MOST_TRIALS:
        chosen.extend(islice(worst, max(1, len(chosen))))
        names = _names(chosen)
        if len(names) == len(nodes):
            return None
        trials += 1
        if holds(names):
            break
        fails = len(chosen)
    else:
        return None
    enough = len(chosen)
    while enough - fails > 1 and trials < MOST_TRIALS:
        middle = (fails + enough) // 2
        trials += 1
        if holds(_names(chosen[:middle])):
            enough = middle
        else:
            fails = middle
    return tuple(chosen[:enough])


def worst_first(nodes: Sequence[str], effect: Effect) -> Iterator[Group]:
    """Yield nodes by how much they hurt, without measuring each of them.

    A group that hurts is measured half by half, the worst group first, until it is a single node; what hurts little
    is never looked into. Once there have been MOST_RUNS measurements, groups come out as they are.
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
