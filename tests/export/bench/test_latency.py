from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.export.bench.latency import LEAST_RUNS, latency_of, measured_latency

DURATIONS = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=300)


@given(DURATIONS)
def test_a_percentile_is_the_least_time_that_enough_runs_did_not_exceed(durations: list[float]) -> None:
    latency = latency_of(durations)
    for percent, value in ((50, latency.p50_seconds), (95, latency.p95_seconds), (99, latency.p99_seconds)):
        if value is not None:
            assert value in durations
            assert sum(one <= value for one in durations) * 100 >= percent * len(durations)
            assert sum(one < value for one in durations) * 100 < percent * len(durations)
    assert latency.fastest_seconds == min(durations)
    assert latency.slowest_seconds == max(durations)
    assert latency.total_seconds == pytest.approx(sum(durations))
    assert latency.runs == len(durations)


@pytest.mark.parametrize(
    ("runs", "p95", "p99"), [(19, None, None), (20, 19, None), (99, 95, None), (100, 95, 99), (1000, 950, 990)]
)
def test_where_a_percentile_would_be_the_slowest_run_there_is_none(runs: int, p95: int | None, p99: int | None) -> None:
    latency = latency_of([float(number) for number in range(runs, 0, -1)])
    assert (latency.p95_seconds, latency.p99_seconds) == (p95, p99)
    assert latency.p50_seconds == -(-runs // 2)


def test_a_single_run_is_its_own_median() -> None:
    assert latency_of([0.25]).p50_seconds == 0.25


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("deepscan.export.bench.latency.time.perf_counter", lambda: self.seconds)


def test_the_first_runs_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(monkeypatch), list[int]()

    def work() -> None:
        clock.seconds += 0.25 if len(calls) < 2 else 0.125  # as when a library prepares itself
        calls.append(1)

    latency = measured_latency(work, seconds=1.0)
    assert latency.slowest_seconds == 0.125
    assert latency.runs == len(calls) - 2 == 8


def test_the_time_is_bounded_and_so_is_the_number_of_runs_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def work() -> None:
        clock.seconds += 0.25

    assert measured_latency(work, seconds=0.0).runs == LEAST_RUNS
    latency = measured_latency(work, seconds=5.0)
    assert (latency.runs, latency.total_seconds) == (20, 5.0)
