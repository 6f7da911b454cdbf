"""First-in-first-out queues between threads, bounded in bytes, that any thread can stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """An item of a queue."""

    @property
    def nbytes(self) -> int:
        """Number of bytes that the item keeps alive."""


T = TypeVar("T", bound=Sized)


class Stopped(Exception):
    """The pipeline was stopped while a thread waited at a queue."""


class BoundedQueue(Generic[T]):
    """A queue between stages, which ends after as many calls of `close` as it has producers.

    Producers wait for room. An item larger than the bound passes when the queue is empty, so nothing blocks forever.
    Once `stop` was called, both raise `Stopped`.
    """

    def __init__(self, *, max_bytes: int, producers: int = 1) -> None:
        self._max_bytes = max_bytes
        self._producers = producers
        self._items: deque[T] = deque()
        self._bytes = 0
        self._stopped = False
        self._changed = threading.Condition()

    def put(self, item: T) -> float:
        """Append an item; return the seconds spent waiting for room."""
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
        """Wait for an item; return one to `most` items, none at the end of the queue, and the seconds spent waiting."""
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
        """Return the number of items inside, and their total bytes."""
        with self._changed:
            return len(self._items), self._bytes

    def close(self) -> None:
        """Announce that one producer puts no more items."""
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
