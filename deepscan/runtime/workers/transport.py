"""A worker's process, from the supervisor's side: start it, tell it something, hear it, know of what it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from deepscan.runtime.system.processes import describe_exit
from deepscan.runtime.workers.protocol import FromWorker, ToWorker, from_worker, receive_bytes, send

MODULE: Final = "deepscan.runtime.workers.worker"
# For a process that was told to end, or has said its last word; then it is killed.
SHUTDOWN_TIMEOUT_SECONDS: Final = 10.0


class WorkerProcess:
    """A running worker.

    Args:
        hear: gets each message, and None after the last one, from a thread of its own.
        environment: variables that differ from this process's.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, hear: Callable[[FromWorker | None], None], *, environment: Mapping[str, str]) -> None:
        their_reading, our_writing = os.pipe()
        our_reading, their_writing = os.pipe()
        # -P: a folder that one happens to be in is no place to import from.
        numbers = [str(number) for number in (os.getpid(), their_reading, their_writing)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            # A group of its own: Ctrl-C then reaches this process alone, which ends the other one.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=[their_reading, their_writing],
                process_group=0,
                env={**os.environ, **environment},
            )
        except BaseException:
            os.close(our_writing)
            os.close(our_reading)
            self._said.close()
            raise
        finally:
            os.close(their_reading)
            os.close(their_writing)
        self._writing = open(our_writing, "wb")  # noqa: SIM115 - closed by `end`
        self._reading = open(our_reading, "rb")  # noqa: SIM115 - closed by `end`
        self._hear = hear
        self._listener = threading.Thread(target=self._listen, name="deepscan-worker", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def tell(self, message: ToWorker) -> None:
        """Send a message; to a worker that has died it is lost, and its end will be heard."""
        with suppress(OSError):
            send(self._writing, message)

    def _listen(self) -> None:
        while (data := receive_bytes(self._reading)) is not None:
            self._hear(from_worker(data))
        self._hear(None)

    def end(self) -> str:
        """Make sure that the process has ended; return of what it died, for people, or nothing if it ended well."""
        with suppress(OSError):  # what was still to be sent cannot be
            self._writing.close()
        try:
            code = self._process.wait(SHUTDOWN_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = 0
        self._listener.join()
        self._reading.close()
        try:
            return describe_exit(code, self._said) if code else ""
        finally:
            self._said.close()

    def kill(self) -> None:
        """End the process, and what it may have started, at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
