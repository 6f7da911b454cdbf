"""Where workers run and how a supervisor talks to them: today in processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

from deepscan.runtime.backends.devices import visible_gpu
from deepscan.runtime.system.processes import describe_exit
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import FromWorker, ToWorker, from_worker, receive_bytes, send

MODULE: Final = "deepscan.runtime.workers.worker"
GPU_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
# For a process that was told to end, or has sent its last message; then it is killed.
SHUTDOWN_TIMEOUT_SECONDS: Final = 10.0

# Gets each message of a worker, and None after the last one; called from any thread.
Receive: TypeAlias = Callable[[FromWorker | None], None]


class Worker(Protocol):
    """A running worker, as its supervisor sees it."""

    def send(self, message: ToWorker) -> None:
        """Send a message; to a worker that has died it is lost, and its end is received."""

    def kill(self) -> None:
        """End the worker at once; its end is received."""

    def end(self) -> str:
        """Wait for the end of the worker; return what it died of, or nothing if it ended well."""


class Transport(Protocol):
    """A place to run workers."""

    def start(self, plan: WorkerPlan, receive: Receive) -> Worker:
        """Start a worker; what it is told first is the supervisor's business.

        Args:
            plan: what it needs.
            receive: gets its messages.

        Raises:
            OSError: it cannot be started.
        """


class LocalTransport:
    """Runs workers in processes of this machine. Each sees one GPU alone, as its first one."""

    def start(self, plan: WorkerPlan, receive: Receive) -> Worker:
        """See `Transport.start`."""
        environment = {}
        if plan.gpu is not None:
            environment = {GPU_VARIABLE: visible_gpu(plan.gpu, os.environ.get(GPU_VARIABLE))}
        return WorkerProcess(receive, environment=environment)


class WorkerProcess:
    """A worker in a process of this machine.

    Args:
        receive: gets its messages, from a thread of its own.
        environment: variables that differ from this process's.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, receive: Receive, *, environment: Mapping[str, str]) -> None:
        their_reading, our_writing = os.pipe()
        our_reading, their_writing = os.pipe()
        # -P: the working folder is no place to import from.
        numbers = [str(number) for number in (os.getpid(), their_reading, their_writing)]
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            # A group of its own: Ctrl-C then reaches this process alone, which ends the other one.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, *numbers],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                pass_fds=[their_reading, their_writing],
                process_group=0,
                env={**os.environ, **environment},
            )
        except BaseException:
            os.close(our_writing)
            os.close(our_reading)
            self._printed.close()
            raise
        finally:
            os.close(their_reading)
            os.close(their_writing)
        self._writing = open(our_writing, "wb")  # noqa: SIM115 - closed by `end`
        self._reading = open(our_reading, "rb")  # noqa: SIM115 - closed by `end`
        self._receive = receive
        self._listener = threading.Thread(target=self._listen, name="deepscan-worker", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """See `Worker.send`."""
        with suppress(OSError):
            send(self._writing, message)

    def _listen(self) -> None:
        while (data := receive_bytes(self._reading)) is not None:
            self._receive(from_worker(data))
        self._receive(None)

    def end(self) -> str:
        """Wait for the end of the process, and kill it after a while; see `Worker.end`."""
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
            return describe_exit(code, self._printed) if code else ""
        finally:
            self._printed.close()

    def kill(self) -> None:
        """End the process, and what it may have started, at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
