"""Workers in threads of the test's own process: everything of a worker but its process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import pytest

from deepscan.errors import DeepscanError
from deepscan.runtime.workers import transport, worker
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import Failed, ToWorker, send
from deepscan.runtime.workers.transport import Listener, Receive


class Killed(Exception):
    """What a step of a worker raises that was told to end."""


class WorkerHere:
    """Does what `WorkerProcess` does, in this process; one that is killed finishes the file it is at.

    Attributes:
        killed: it was told to end; steps of the worker that tests make slow look at it, and raise `Killed`.
    """

    def __init__(
        self, receive: Receive, *, environment: Mapping[str, str], killed: threading.Event | None = None
    ) -> None:
        assert not environment
        self.killed = killed or threading.Event()
        reading, ours = os.pipe()
        heard, writing = os.pipe()
        self._writing, self._heard = open(ours, "wb"), open(heard, "rb")  # noqa: SIM115 - closed by `end`
        self._listener = Listener(self._heard, receive, self.kill)
        self._threads = [threading.Thread(target=self._work, args=(reading, writing)), self._listener]
        for thread in self._threads:
            thread.start()

    def _work(self, reading: int, writing: int) -> None:
        with open(reading, "rb") as received, open(writing, "wb") as sent, suppress(Killed):
            supervisor = worker.SupervisorLink(received, sent)
            try:
                worker.work(supervisor)
            except DeepscanError as error:
                supervisor.send(Failed(type(error).__name__, str(error)))

    def send(self, message: ToWorker) -> None:
        with suppress(OSError, ValueError):  # `kill` closes the stream
            send(self._writing, message)

    def kill(self) -> None:
        self.killed.set()
        self._writing.close()

    def end(self) -> str:
        self._writing.close()
        for thread in self._threads:
            thread.join()
        self._heard.close()
        return self._listener.problem


class TransportHere:
    """Runs workers in threads of this process, which look at one event for whether they were killed."""

    def __init__(self, killed: threading.Event) -> None:
        self._killed = killed

    def start(self, plan: WorkerPlan, receive: Receive) -> WorkerHere:
        assert plan.gpu is None
        self._killed.clear()
        return WorkerHere(receive, environment={}, killed=self._killed)


@contextmanager
def workers_in_threads() -> Iterator[None]:
    """Within this, scans in this process start no other ones, which takes a fifth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "WorkerProcess", WorkerHere)
        patch.setattr(worker, "limit_memory", lambda _: None)
        yield
