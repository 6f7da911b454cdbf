from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from deepscan.runtime.pipeline.queues import BoundedQueue, Stopped
from tests.runtime.watchdog import PATIENCE_SECONDS, wait_until, within_patience

T = TypeVar("T")
# How long a thread is watched that must not move; one that wrongly moves does so much sooner.
WATCHED_SECONDS = 0.1


@dataclass(frozen=True)
class Item:
    number: int
    nbytes: int = 1
    producer: int = 0


class Waiter(Generic[T]):
    """Runs one call that may wait at a link, in its own thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._returned: list[T] = []
        self._begun, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        assert self._begun.wait(PATIENCE_SECONDS)

    def waits(self) -> bool:
        """Whether it does not come back, as far as one can see."""
        return not self._over.wait(WATCHED_SECONDS)

    def ends(self) -> T:
        """Return what the call returned, or raise `Stopped` if it did."""
        assert self._over.wait(PATIENCE_SECONDS), "it still waits"
        if not self._returned:
            raise Stopped
        return self._returned[0]

    def _run(self) -> None:
        self._begun.set()
        try:
            self._returned.append(self._call())
        except Stopped:
            pass
        finally:
            self._over.set()


def taken_from(link: BoundedQueue[Item], most: int = 100) -> list[int]:
    return [item.number for item in within_patience(lambda: link.get(most))[0]]


@settings(deadline=None, phases=[Phase.generate])  # a put that hangs takes too long to be made smaller
@given(st.lists(st.tuples(st.sampled_from(["put", "take"]), st.integers(0, 6))))
def test_items_come_out_as_they_went_in(steps: list[tuple[str, int]]) -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=10)
    inside: deque[Item] = deque()
    for number, (step, size) in enumerate(steps):
        if step == "put" and (not inside or sum(item.nbytes for item in inside) + size <= 10):
            item = Item(number, size)
            within_patience(partial(link.put, item))
            inside.append(item)
        elif step == "take" and inside:
            taken, _ = link.get(size + 1)
            assert taken == [inside.popleft() for _ in range(min(size + 1, len(inside)))]
    link.close()
    assert link.get(1000)[0] == list(inside)
    assert link.get(1)[0] == []


def test_a_full_link_holds_producers_back_until_there_is_room_for_their_item() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=10)
    link.put(Item(0, 4))
    link.put(Item(1, 6))
    producer = Waiter(lambda: link.put(Item(2, 5)))
    assert producer.waits()
    assert taken_from(link, 1) == [0]
    assert producer.waits()  # 6 and 5 are still too many
    assert taken_from(link, 1) == [1]
    producer.ends()
    assert taken_from(link) == [2]


def test_the_bound_itself_still_fits() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=10)
    within_patience(lambda: [link.put(Item(number, 5)) for number in range(2)])
    assert taken_from(link) == [0, 1]


def test_an_item_beyond_the_bound_passes_alone() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=10)
    within_patience(lambda: link.put(Item(0, 1000)))
    follower = Waiter(lambda: link.put(Item(1, 0)))
    assert follower.waits()
    assert taken_from(link) == [0]
    follower.ends()
    giant = Waiter(lambda: link.put(Item(2, 1000)))
    assert giant.waits()
    assert taken_from(link) == [1]
    giant.ends()
    assert taken_from(link) == [2]


def test_a_link_ends_when_the_last_of_its_producers_has_finished_and_it_is_empty() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=10, producers=3)
    link.close()
    link.put(Item(0))
    link.close()
    assert taken_from(link) == [0]
    consumer = Waiter(lambda: link.get(1))
    assert consumer.waits()
    link.close()
    assert consumer.ends()[0] == []
    assert taken_from(link) == []


def test_it_says_what_it_holds() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=100)
    for nbytes in (3, 30, 5):
        link.put(Item(0, nbytes))
    assert link.size() == (3, 38)
    link.get(2)
    assert link.size() == (1, 5)
    link.stop()
    assert link.size() == (0, 0)


def test_stopping_wakes_producers_and_consumers_and_refuses_all_that_follows() -> None:
    full: BoundedQueue[Item] = BoundedQueue(max_bytes=1)
    full.put(Item(0))
    empty: BoundedQueue[Item] = BoundedQueue(max_bytes=1)
    producers = [Waiter(lambda: full.put(Item(1))), Waiter(lambda: full.put(Item(2)))]
    consumers = [Waiter(lambda: empty.get(1)), Waiter(lambda: empty.get(1))]
    waiters: list[Waiter[Any]] = [*producers, *consumers]
    assert all(waiter.waits() for waiter in waiters)
    for link in (full, empty):
        link.stop()
    for waiter in waiters:
        with pytest.raises(Stopped):
            waiter.ends()
    with pytest.raises(Stopped):
        full.get(1)
    with pytest.raises(Stopped):
        empty.put(Item(3))


def test_a_link_that_had_ended_can_still_be_stopped() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=1)
    link.close()
    link.stop()
    with pytest.raises(Stopped):
        link.get(1)


def test_waiting_times_are_counted_on_both_sides() -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=1)
    free_put = link.put(Item(0))
    producer = Waiter(lambda: link.put(Item(1)))
    assert producer.waits()
    free_take = link.get(1)[1]
    blocked_put = producer.ends()
    link.get(1)
    consumer = Waiter(lambda: link.get(1))
    assert consumer.waits()
    link.put(Item(2))
    starved_take = consumer.ends()[1]
    assert 0.0 <= free_put < blocked_put
    assert 0.0 <= free_take < starved_take


@pytest.mark.parametrize("max_bytes", [1, 7, 1000])
@pytest.mark.parametrize(("producers", "consumers", "most"), [(1, 1, 1), (4, 1, 5), (4, 3, 2)])
def test_nothing_is_lost_doubled_or_overtaken_among_many_threads(
    max_bytes: int, producers: int, consumers: int, most: int
) -> None:
    link: BoundedQueue[Item] = BoundedQueue(max_bytes=max_bytes, producers=producers)
    received: list[list[Item]] = [[] for _ in range(consumers)]

    def produce(producer: int) -> None:
        for number in range(300):
            link.put(Item(number, (number * 7 + producer) % 5, producer))
        link.close()

    def consume(own: list[Item]) -> None:
        while taken := link.get(most)[0]:
            assert len(taken) <= most
            own.extend(taken)

    threads = [threading.Thread(target=produce, args=(producer,), daemon=True) for producer in range(producers)]
    threads += [threading.Thread(target=consume, args=(own,), daemon=True) for own in received]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), "all items passed")
    together = sorted((item.producer, item.number) for own in received for item in own)
    assert together == [(producer, number) for producer in range(producers) for number in range(300)]
    for own in received:
        for producer in range(producers):
            numbers = [item.number for item in own if item.producer == producer]
            assert numbers == sorted(numbers)
