"""How much a pipeline holds at once, and what it says about where the time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from deepscan.runtime.pipeline.pipeline import Pipeline, Source, Stage, StageTimes
from tests.runtime.watchdog import within_patience

ITEMS = 60
PAUSE_SECONDS = 0.004


@dataclass(frozen=True)
class Item:
    nbytes: int


class Counter:
    """Counts the items, and their bytes, that were made and are not yet used up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.bytes = self.most_bytes = self.items = self.most_items = 0

    def add(self, sign: int, item: Item) -> None:
        with self._lock:
            self.items += sign
            self.bytes += sign * item.nbytes
            self.most_items = max(self.most_items, self.items)
            self.most_bytes = max(self.most_bytes, self.bytes)


@pytest.mark.parametrize(("threads", "batch", "max_bytes"), [(1, 1, 50), (3, 4, 50), (2, 4, 1)])
def test_a_fast_source_never_has_more_in_flight_than_the_bounds_allow(threads: int, batch: int, max_bytes: int) -> None:
    counter = Counter()

    def feed(job: int) -> Iterator[Item]:
        for _ in range(100):
            item = Item(10)
            counter.add(1, item)
            yield item

    def slow(items: Sequence[Item]) -> Iterator[Item]:
        time.sleep(0.001)
        for item in items:
            counter.add(-1, item)
        return iter(())

    stage = Stage("slow", slow, batch=batch, max_bytes=10)
    pipeline = Pipeline(range(6), Source("feed", feed, threads=threads, max_bytes=max_bytes), [stage])
    within_patience(lambda: list(pipeline.results()))
    # What is inside the link, what the stage has in its hands, and what each source is about to hand over.
    inside = max(1, max_bytes // 10)
    assert inside <= counter.most_items <= inside + batch + threads
    assert counter.items == 0


def test_a_slow_consumer_holds_back_the_whole_pipeline() -> None:
    counter = Counter()

    def feed(job: int) -> Iterator[Item]:
        for _ in range(200):
            item = Item(10)
            counter.add(1, item)
            yield item

    def consume() -> None:
        stages = [Stage(name, lambda items: items, batch=2, max_bytes=30) for name in ("a", "b")]
        for item in Pipeline([0], Source("feed", feed, threads=1, max_bytes=50), stages).results():
            time.sleep(0.0005)
            counter.add(-1, item)

    within_patience(consume)
    links = 50 + 30 + 30
    hands = 10 + 2 * 20 + 10
    assert links <= counter.most_bytes <= links + hands
    assert counter.items == 0


def times_of(*, source: float = 0.0, first: float = 0.0, second: float = 0.0) -> list[StageTimes]:
    """Run a source and two stages that pause so many seconds for every item."""

    def pausing(seconds: float, items: Sequence[Item]) -> Iterator[Item]:
        for item in items:
            if seconds:
                time.sleep(seconds)
            yield item

    pipeline = Pipeline(
        [ITEMS // 2, ITEMS // 2],
        Source("source", lambda number: pausing(source, [Item(1)] * number), threads=1, max_bytes=3),
        [
            Stage("first", lambda items: pausing(first, items), batch=1, max_bytes=3),
            Stage("second", lambda items: pausing(second, items), batch=1, max_bytes=3),
        ],
    )
    within_patience(lambda: list(pipeline.results()))
    return pipeline.times()


@pytest.mark.parametrize("slow", ["source", "first", "second"])
def test_the_slowest_is_busy_those_before_it_are_blocked_and_those_after_it_wait(slow: str) -> None:
    times = times_of(**{slow: PAUSE_SECONDS})
    names = [stage.name for stage in times]
    assert names == ["source", "first", "second"]
    for place, stage in enumerate(times):
        spent = {"busy": stage.busy_seconds, "waiting": stage.waiting_seconds, "blocked": stage.blocked_seconds}
        expected = ["blocked", "busy", "waiting"][(place > names.index(slow)) - (place < names.index(slow)) + 1]
        assert max(spent, key=lambda kind: spent[kind]) == expected, (stage, spent)


def test_every_stage_counts_its_items_and_no_time_is_negative() -> None:
    times = times_of(first=PAUSE_SECONDS)
    assert [stage.items for stage in times] == [2, ITEMS, ITEMS]  # a source counts its jobs
    assert [stage.threads for stage in times] == [1, 1, 1]
    for stage in times:
        parts = [stage.busy_seconds, stage.waiting_seconds, stage.blocked_seconds, stage.cpu_seconds]
        assert min(parts) >= 0.0
        assert sum(parts[:3]) > 0.0


def test_a_stage_that_sleeps_is_busy_without_using_the_processor() -> None:
    sleeping = times_of(first=PAUSE_SECONDS)[1]
    assert sleeping.busy_seconds >= ITEMS * PAUSE_SECONDS
    assert sleeping.cpu_seconds < sleeping.busy_seconds
