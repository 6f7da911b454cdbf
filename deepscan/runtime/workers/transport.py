"""Transports: where workers run, and how a supervisor talks to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import BinaryIO, Final, Protocol, TypeAlias

from deepscan.runtime.backends.devices import visible_gpu
from deepscan.runtime.system.processes import describe_exit
from deepscan.runtime.workers.plan import WorkerPlan
from deepscan.runtime.workers.protocol import FromWorker, ToWorker, from_worker, receive_bytes, send

MODULE: Final = "deepscan.runtime.workers.worker"
GPU_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
# Time to end for a process that has sent its last message; after that it is killed.
SHUTDOWN_TIMEOUT_SECONDS: Final = 10.0

# Takes each message of a worker, and None after the last one. May be called from any thread.
Receive: TypeAlias = Callable[[FromWorker | None], None]


class Worker(Protocol):
    """A running worker, as its supervisor sees it."""

    def send(self, message: ToWorker) -> None:
        """Send a message; one to a dead worker is lost."""

    def kill(self) -> None:
        """End the worker at once; its end is received like any other."""

    def end(self) -> str:
        """Wait until the worker has ended, and return what it died of; empty if it ended well."""


class Transport(Protocol):
    """A place to run workers."""

    def start(self, plan: WorkerPlan, receive: Receive) -> Worker:
        """Start a worker, which waits for its first message; raise OSError if it cannot be started."""


class Listener(threading.Thread):
    """Thread that passes on the messages of a worker, and its end however that comes.

    It kills a worker of which a message cannot be read, as from another version of deepscan; `problem` says so then.
    """

    def __init__(self, reading: BinaryIO, receive: Receive, kill: Callable[[], None]) -> None:
        super().__init__(name="deepscan-worker", daemon=True)
        self.problem = ""
        self._reading, self._receive, self._kill = reading, receive, kill

    def run(self) -> None:
        """Listen."""
        try:
            while (data := receive_bytes(self._reading)) is not None:
                self._receive(from_worker(data))
        except Exception as error:
            self.problem = f"a message from it could not be read ({type(error).__name__}: {error})"
            self._kill()
        finally:
            self._receive(None)


class LocalTransport:
    """Runs workers in processes of this machine. Each of them sees at most one GPU."""

    def start(self, plan: WorkerPlan, receive: Receive) -> Worker:
        """See `Transport.start`."""
        environment = {}
        if plan.gpu is not None:
            environment = {GPU_VARIABLE: visible_gpu(plan.gpu, os.environ.get(GPU_VARIABLE))}
        return WorkerProcess(receive, environment=environment)


class WorkerProcess:
    """A worker in a process of this machine, with variables added to this one's; see `Transport.start`."""

    def __init__(self, receive: Receive, *, environment: Mapping[str, str]) -> None:
        their_reading, our_writing = os.pipe()
        our_reading, their_writing = os.pipe()
        # -P: nothing is imported from the working directory.
        numbers = [str(number) for number in (os.getpid(), their_reading, their_writing)]
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            # In a group of its own, so that Ctrl-C reaches only this process, which ends the other one.
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
        self._listener = Listener(self._reading, receive, self.kill)
        self._listener.start()

    @property
    def pid(self) -> int:
        """ID of the process."""
        return self._process.pid

    def send(self, message: ToWorker) -> None:
        """See `Worker.send`."""
        with suppress(OSError):
            send(self._writing, message)

    def end(self) -> str:
        """See `Worker.end`; a process that does not end is killed."""
        with suppress(OSError):  # a part of a message may be left, which cannot be sent any more
            self._writing.close()
        try:
            code = self._process.wait(SHUTDOWN_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = 0
        self._listener.join()
        self._reading.close()
        try:
            return self._listener.problem or (describe_exit(code, self._printed) if code else "")
        finally:
            self._printed.close()

    def kill(self) -> None:
        """End the process and its children at once."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
