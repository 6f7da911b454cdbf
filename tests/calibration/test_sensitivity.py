from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepscan.calibration.sensitivity import MOST_CHECKS, MOST_RUNS, Group, most_sensitive_first, nodes_for_fp32

harms = st.lists(st.floats(0, 10), min_size=1, max_size=120)


class Network:
    """Nodes whose harm adds up; the budget is a limit on what is not left out."""

    def __init__(self, harm: Sequence[float], budget: float = 1.0) -> None:
        self.harm = {f"node {place}": value for place, value in enumerate(harm)}
        self.budget = budget
        self.runs: list[Sequence[str]] = []
        self.trials: list[Sequence[str]] = []

    def effect(self, nodes: Sequence[str]) -> float:
        self.runs.append(nodes)
        return sum(self.harm[name] for name in nodes)

    def left(self, gone: Sequence[str]) -> float:
        return sum(value for name, value in self.harm.items() if name not in gone)

    def holds(self, gone: Sequence[str]) -> bool:
        self.trials.append(gone)
        return self.left(gone) <= self.budget

    def search(self) -> tuple[Group, ...] | None:
        return nodes_for_fp32(list(self.harm), self.effect, self.holds)


def names(groups: Sequence[Group]) -> list[str]:
    return [name for group in groups for name in group.nodes]


def test_where_the_budget_holds_nothing_is_measured() -> None:
    network = Network([0.1] * 5)
    assert network.search() == ()
    assert network.runs == []


def test_the_one_node_that_hurts_is_found_among_many() -> None:
    harm = [0.01] * 70
    harm[43] = 5.0
    network = Network(harm)
    assert network.search() == (Group(("node 43",), 5.0),)
    assert len(network.trials) == 2
    assert len(network.runs) <= 2 * 7


def test_no_more_are_left_out_than_necessary() -> None:
    harm = [0.001] * 60
    for place in (3, 17, 18, 40, 59):
        harm[place] = 2.0
    found = Network(harm).search()
    assert found is not None
    assert sorted(names(found)) == sorted(f"node {place}" for place in (3, 17, 18, 40, 59))


@given(harms, st.floats(0, 20))
def test_it_asks_seldom_and_what_it_returns_holds(harm: list[float], budget: float) -> None:
    network = Network(harm, budget)
    found = network.search()
    assert len(network.trials) <= MOST_CHECKS
    assert len(network.runs) <= MOST_RUNS
    if found is not None:
        assert network.left(names(found)) <= budget
        assert len(set(names(found))) == len(names(found)) < max(1, len(harm)) or not found


def test_where_only_float32_would_do_there_is_no_answer() -> None:
    assert Network([3.0] * 9).search() is None


@given(harms)
def test_all_nodes_come_out_once_the_worst_groups_first(harm: list[float]) -> None:
    network = Network(harm)
    groups = list(most_sensitive_first(list(network.harm), network.effect))
    assert sorted(names(groups)) == sorted(network.harm)
    if len(harm) <= 20:
        effects = [network.harm[name] for name in names(groups)]
        assert effects == sorted(effects, reverse=True)


@given(harms.filter(lambda harm: len(harm) > 40))
def test_with_many_nodes_groups_come_out_whole(harm: list[float]) -> None:
    network = Network(harm)
    groups = list(most_sensitive_first(list(network.harm), network.effect))
    assert len(network.runs) <= MOST_RUNS
    assert max(len(group.nodes) for group in groups) > 1
    for group in groups:
        places = [int(name.split()[1]) for name in group.nodes]
        assert places == list(range(places[0], places[-1] + 1))


def test_what_is_no_number_is_worst() -> None:
    found = next(most_sensitive_first(["a", "b", "c"], lambda nodes: np.inf if "c" in nodes else 9.0))
    assert found.nodes == ("c",)
