"""The steps of an export: said when they begin, timed when they end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from deepscan.export.parity.conversion import Report


class Steps:
    """Takes the time of each step.

    Attributes:
        report: takes a line for people when something begins.
        taken: the title of each finished step and its duration in seconds.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Around what a step does."""
        self.report(title)
        started = time.perf_counter()
        yield
        self.taken.append((title, time.perf_counter() - started))
