"""Workers in threads of the test's own process: everything of a worker but its process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import pytest

from deepscan.errors import DeepscanError
from deepscan.runtime.workers import transport, worker
from deepscan.runtime.workers.protocol import (
    Failed,
    ToWorker,
    from_worker,
    receive_bytes,
    send,
)
from deepscan.runtime.workers.transport import Receive


class WorkerHere:
    """Does what `WorkerProcess` does, in this process; one that is killed finishes the file it is at."""

    def __init__(self, receive: Receive, *, environment: Mapping[str, str]) -> None:
        assert not environment
        reading, ours = os.pipe()
        heard, writing = os.pipe()
        self._writing, self._heard = open(ours, "wb"), open(heard, "rb")  # noqa: SIM115 - closed by `end`
        self._threads = [
            threading.Thread(target=self._work, args=(reading, writing)),
            threading.Thread(target=self._listen, args=(receive,)),
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, reading: int, writing: int) -> None:
        with open(reading, "rb") as received, open(writing, "wb") as sent:
            supervisor = worker.SupervisorLink(received, sent)
            try:
                worker.work(supervisor)
            except DeepscanError as error:
                supervisor.send(Failed(type(error).__name__, str(error)))

    def _listen(self, receive: Receive) -> None:
        while (data := receive_bytes(self._heard)) is not None:
            receive(from_worker(data))
        receive(None)

    def send(self, message: ToWorker) -> None:
        with suppress(OSError):
            send(self._writing, message)

    def kill(self) -> None:
        self._writing.close()

    def end(self) -> str:
        self._writing.close()
        for thread in self._threads:
            thread.join()
        self._heard.close()
        return ""


@contextmanager
def workers_in_threads() -> Iterator[None]:
    """Within this, scans in this process start no other ones, which takes a fifth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "WorkerProcess", WorkerHere)
        patch.setattr(worker, "limit_memory", lambda _: None)
        yield
