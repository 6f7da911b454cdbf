"""Latency of a function: repeated for a given time, after warm-up runs that do not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

WARM_UP_SHARE: Final = 0.2  # of the time that is measured
LEAST_WARM_UPS: Final = 2
LEAST_RUNS: Final = 3


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of repeated runs, in seconds.

    Percentiles are those of nearest rank. One that would be the slowest run is None, as `slowest_seconds` has it: p95
    below 20 runs, p99 below 100.
    """

    runs: int
    p50_seconds: float
    p95_seconds: float | None
    p99_seconds: float | None
    fastest_seconds: float
    slowest_seconds: float
    total_seconds: float


def measured_latency(work: Callable[[], object], *, seconds: float) -> Latency:
    """Run a function repeatedly, at least twice to warm up, then for so many seconds and at least three times.

    It must return when all work is done, on any device.
    """
    _repeated(work, seconds=WARM_UP_SHARE * seconds, least=LEAST_WARM_UPS)
    return latency_of(_repeated(work, seconds=seconds, least=LEAST_RUNS))


def latency_of(durations: Sequence[float]) -> Latency:
    """Return the statistics of the durations of single runs, in seconds; at least one."""
    ordered = sorted(durations)
    middle = _percentile(ordered, 50)
    return Latency(
        runs=len(ordered),
        p50_seconds=ordered[-1] if middle is None else middle,
        p95_seconds=_percentile(ordered, 95),
        p99_seconds=_percentile(ordered, 99),
        fastest_seconds=ordered[0],
        slowest_seconds=ordered[-1],
        total_seconds=sum(ordered),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    rank = -(-percent * len(ordered) // 100)  # rounded up
    return ordered[rank - 1] if rank < len(ordered) else None


def _repeated(work: Callable[[], object], *, seconds: float, least: int) -> list[float]:
    durations: list[float] = []
    ends = time.perf_counter() + seconds
    while len(durations) < least or time.perf_counter() < ends:
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return durations
