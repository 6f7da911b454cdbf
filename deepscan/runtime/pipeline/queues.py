"""First-in-first-out queues between threads, bounded in bytes, that can be stopped from anywhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows how much memory it keeps alive."""

    @property
    def nbytes(self) -> int:
        """Bytes kept alive."""


T = TypeVar("T", bound=Sized)


class Stopped(Exception):
    """The pipeline was stopped while a thread waited at a queue."""


class BoundedQueue(Generic[T]):
    """A queue between stages.

    An item larger than the bound passes when the queue is empty, so nothing blocks forever. The waiting times
    say where a pipeline is slow: a waiting consumer has a slow producer, a blocked producer has a slow consumer.

    Args:
        max_bytes: producers wait while the items inside hold more than this.
        producers: how many threads put items; after as many calls of `close` the queue ends.
    """

    def __init__(self, *, max_bytes: int, producers: int = 1) -> None:
        self._max_bytes = max_bytes
        self._producers = producers
        self._items: deque[T] = deque()
        self._bytes = 0
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, item: T) -> float:
        """Append an item; return the seconds that this had to wait for room.

        Raises:
            Stopped: `stop` was called.
        """
        started = time.perf_counter()
        with self._changed:
            while not self._stopped and self._items and self._bytes + item.nbytes > self._max_bytes:
                self._changed.wait()
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self._bytes += item.nbytes
            self._changed.notify_all()
        return time.perf_counter() - started

    def get(self, most: int) -> tuple[list[T], float]:
        """Wait for one item, then return what is there.

        Returns:
            One to `most` items, or none when the queue has ended; and the seconds that this had to wait.

        Raises:
            Stopped: `stop` was called.
        """
        started = time.perf_counter()
        with self._changed:
            while not self._stopped and not self._items and self._producers > 0:
                self._changed.wait()
            if self._stopped:
                raise Stopped
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(item.nbytes for item in taken)
            self._changed.notify_all()
        return taken, time.perf_counter() - started

    def size(self) -> tuple[int, int]:
        """Return how many items are inside, and their bytes."""
        with self._changed:
            return len(self._items), self._bytes

    def close(self) -> None:
        """End the part of one producer, which puts no more items."""
        with self._changed:
            self._producers -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Raise `Stopped` in every thread that waits, and drop the items inside."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()
