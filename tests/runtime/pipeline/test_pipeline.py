from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import pytest

from deepscan.runtime.pipeline.pipeline import Pipeline, Source, Stage, StageTimes
from tests.runtime.watchdog import PATIENCE_SECONDS, deepscan_threads, within_patience


@dataclass(frozen=True)
class Item:
    job: int
    number: int
    nbytes: int = 10


@dataclass
class Feed:
    """A source that knows which of its generators were closed; endless unless told otherwise."""

    length: int | None = None
    fault: Callable[[Item], None] | None = None
    opened: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    def __call__(self, job: int) -> Iterator[Item]:
        self.opened.append(job)
        try:
            for number in islice(count(), self.length):
                if self.fault is not None:
                    self.fault(Item(job, number))
                yield Item(job, number)
        finally:
            self.closed.append(job)


class Boom(Exception):
    pass


def passing(items: Sequence[Item]) -> Iterator[Item]:
    yield from items


def raising_at(number: int, error: type[BaseException] = Boom) -> Callable[[Sequence[Item]], Iterator[Item]]:
    def stage(items: Sequence[Item]) -> Iterator[Item]:
        for item in items:
            if item.number == number:
                raise error("on purpose")
            yield item

    return stage


def pipeline_of(
    feed: Callable[[Any], Any],
    *stages: Callable[[Sequence[Any]], Any],
    jobs: Any = range(3),
    threads: int = 3,
    batch: int = 4,
    max_bytes: int = 50,
) -> Pipeline:
    return Pipeline(
        jobs,
        Source("feed", feed, threads=threads, max_bytes=max_bytes),
        [Stage(f"stage{n}", stage, batch=batch, max_bytes=max_bytes) for n, stage in enumerate(stages)],
    )


def assert_all_over(feed: Feed) -> None:
    assert deepscan_threads() == []
    assert sorted(feed.closed) == sorted(feed.opened) != []


@pytest.mark.parametrize("max_bytes", [1, 35, 10_000])
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 7), (8, 3)])
@pytest.mark.parametrize("stages", [0, 1, 3])
def test_every_item_arrives_once_and_those_of_one_source_in_their_order(
    max_bytes: int, threads: int, batch: int, stages: int
) -> None:
    def stage(items: Sequence[Item]) -> Iterator[Item]:
        assert 1 <= len(items) <= batch
        yield from items

    feed = Feed(length=20)
    pipeline = pipeline_of(feed, *[stage] * stages, jobs=range(12), threads=threads, batch=batch, max_bytes=max_bytes)
    found: list[Item] = within_patience(lambda: list(pipeline.results()))
    assert len(found) == 240
    for job in range(12):
        assert [item.number for item in found if item.job == job] == list(range(20))
    assert_all_over(feed)


@pytest.mark.parametrize(("jobs", "length"), [(0, 5), (4, 0)])
def test_nothing_in_gives_nothing_out(jobs: int, length: int) -> None:
    pipeline = pipeline_of(Feed(length=length), passing, jobs=range(jobs))
    assert within_patience(lambda: list(pipeline.results())) == []
    assert deepscan_threads() == []


def test_functions_may_return_lists_and_change_the_number_of_items() -> None:
    pipeline = pipeline_of(
        lambda job: [Item(job, number) for number in range(5)],
        lambda items: [item for item in items if item.number % 2],
        lambda items: [item for item in items for _ in range(3)],
        threads=1,
    )
    found = within_patience(lambda: list(pipeline.results()))
    assert [(item.job, item.number) for item in found] == [
        (job, number) for job in range(3) for number in (1, 3) for _ in range(3)
    ]


def test_the_time_after_the_last_item_was_waited_for_too() -> None:
    def slow_to_end(job: int) -> Iterator[Item]:
        yield Item(job, 0)
        time.sleep(0.2)

    pipeline = pipeline_of(slow_to_end, passing, jobs=range(1), threads=1)
    within_patience(lambda: list(pipeline.results()))
    source, stage = pipeline.times()
    assert source.busy_share > 0.9
    assert stage.waiting_seconds > 0.15
    assert stage.busy_share < 0.1


def test_the_busy_share_is_of_all_that_is_accounted_for() -> None:
    assert StageTimes("never ran", 1).busy_share == 0.0
    times = StageTimes("stage", 2, busy_seconds=3.0, waiting_seconds=1.0, blocked_seconds=2.0, cpu_seconds=9.0)
    assert times.busy_share == 0.5


def test_no_more_jobs_run_at_once_than_there_are_threads_and_each_runs_once() -> None:
    feed = Feed(length=30)
    running: list[int] = []

    def watched(job: int) -> Iterator[Item]:
        for item in feed(job):
            running.append(len(feed.opened) - len(feed.closed))
            yield item

    within_patience(lambda: list(pipeline_of(watched, jobs=range(20), threads=3).results()))
    assert sorted(feed.opened) == list(range(20))
    assert 1 <= max(running) <= 3


def _boom_at_five(item: Item) -> None:
    if item.number == 5:
        raise Boom("on purpose")


def _jobs_that_raise() -> Iterator[int]:
    yield 0
    raise Boom("on purpose")


@pytest.mark.parametrize("max_bytes", [1, 10_000])
@pytest.mark.parametrize(
    ("feed", "stages", "jobs", "error"),
    [
        pytest.param(Feed(fault=_boom_at_five), [passing, passing], range(3), Boom, id="source"),
        pytest.param(Feed(), [raising_at(5), passing], range(3), Boom, id="first stage"),
        pytest.param(Feed(), [passing, raising_at(5)], range(3), Boom, id="last stage"),
        pytest.param(Feed(), [passing, raising_at(0)], range(3), Boom, id="last stage, at once"),
        pytest.param(Feed(), [passing], _jobs_that_raise, Boom, id="jobs"),
        pytest.param(
            Feed(), [raising_at(5, KeyboardInterrupt)], range(3), KeyboardInterrupt, id="interrupt in a stage"
        ),
        pytest.param(Feed(), [raising_at(5, SystemExit)], range(3), SystemExit, id="exit in a stage"),
        pytest.param(Feed(length=9), [lambda items: [*items, None]], range(3), AttributeError, id="no message"),
    ],
)
def test_whatever_raises_anywhere_stops_everything_and_is_raised_again(
    feed: Feed, stages: list[Any], jobs: Any, error: type[BaseException], max_bytes: int
) -> None:
    fresh = Feed(length=feed.length, fault=feed.fault)
    pipeline = pipeline_of(fresh, *stages, jobs=jobs() if callable(jobs) else jobs, max_bytes=max_bytes)
    with pytest.raises(error):
        within_patience(lambda: list(pipeline.results()))
    assert_all_over(fresh)


def test_the_first_of_several_errors_is_the_one_that_is_raised() -> None:
    def feed(job: int) -> Iterator[Item]:
        try:
            yield from Feed()(job)
        finally:
            raise ValueError("while the source closes, because the stage raised")

    with pytest.raises(Boom):
        within_patience(lambda: list(pipeline_of(feed, raising_at(3)).results()))
    assert deepscan_threads() == []


def _break(results: Iterator[Item]) -> None:
    for item in results:
        if item.number == 3:
            break


def _raise(error: type[BaseException]) -> Callable[[Iterator[Item]], None]:
    def consume(results: Iterator[Item]) -> None:
        for item in results:
            if item.number == 3:
                raise error

    return consume


def _throw_inside(results: Iterator[Item]) -> None:
    next(results)
    results.throw(KeyboardInterrupt)  # type: ignore[attr-defined]


def _close(results: Iterator[Item]) -> None:
    next(results)
    results.close()  # type: ignore[attr-defined]


def _abandon(results: Iterator[Item]) -> None:
    next(results)


@pytest.mark.parametrize("max_bytes", [1, 10_000])
@pytest.mark.parametrize(
    ("consume", "error"),
    [
        (_break, None),
        (_close, None),
        (_abandon, None),
        (_raise(Boom), Boom),
        (_raise(KeyboardInterrupt), KeyboardInterrupt),
        (_throw_inside, KeyboardInterrupt),
    ],
)
def test_a_consumer_that_leaves_in_whatever_way_stops_everything(
    consume: Callable[[Iterator[Item]], None], error: type[BaseException] | None, max_bytes: int
) -> None:
    feed = Feed()

    def run() -> BaseException | None:
        try:
            consume(pipeline_of(feed, passing, passing, max_bytes=max_bytes).results())
        except (Boom, KeyboardInterrupt) as raised:
            return raised.with_traceback(None)  # which would keep the generator alive
        return None

    raised = within_patience(run)
    gc.collect()
    assert raised is None if error is None else type(raised) is error
    assert_all_over(feed)


def test_a_pipeline_nobody_iterates_over_starts_nothing() -> None:
    feed = Feed()
    results = pipeline_of(feed, passing).results()
    assert deepscan_threads() == []
    del results
    assert feed.opened == []


INTERRUPTED_WHILE_WAITING = """
import itertools, os, signal, threading, time
from deepscan.runtime.pipeline.pipeline import Pipeline, Source, Stage, StageTimes
closed = []
def feed(job):
    try:
        for number in itertools.count():
            time.sleep(0.01)
            if number == 10:
                os.kill(os.getpid(), signal.SIGINT)
            yield memoryview(b"item")
    finally:
        closed.append(job)
swallow = Stage("swallow", lambda items: [], batch=2, max_bytes=10)
try:
    list(Pipeline([1], Source("feed", feed, threads=1, max_bytes=10), [swallow]).results())
except KeyboardInterrupt:
    print("interrupted", closed, [t.name for t in threading.enumerate() if t.name.startswith("deepscan-")])
"""


def test_an_interrupt_while_the_consumer_waits_for_a_result_stops_everything() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_WAITING],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted [1] []\n", "")


def test_threads_that_cannot_be_started_do_not_leave_the_others_running(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_only_two(thread: threading.Thread) -> None:
        if thread.name.startswith("deepscan-"):
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_only_two)
    feed = Feed()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        within_patience(lambda: list(pipeline_of(feed, passing).results()))
    assert deepscan_threads() == []
    assert len(started) == 2
