"""Starting the process that measures, hearing what it says, and of what it died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Final

import msgspec

from deepscan.export.bench.bench_records import END, MACHINE_AT_FAULT, Answer, Failure, Task, failure_of
from deepscan.runtime.system.processes import describe_exit

WORKER: Final = "deepscan.export.bench.bench_worker"
# For its libraries to give back what they hold; then it is ended.
SHUTDOWN_TIMEOUT_SECONDS: Final = 20.0
KILLED: Final = "its process was killed, as happens when memory runs out"


def answers_of(task: Task, *, worker: str = WORKER) -> Iterator[Answer]:
    """Do a task in a process of its own; closing the iterator, or whatever interrupts it, ends the process.

    Args:
        task: what to do.
        worker: the module that does it, see `bench_worker`.

    Yields:
        The answers as they come; if the process dies, the last one says of what.
    """
    reading, writing = os.pipe()
    # -P: a folder that one happens to be in is no place to import from.
    arguments = [str(os.getpid()), str(writing), msgspec.json.encode(task).decode()]
    command = [sys.executable, "-P", "-m", worker, *arguments]
    with open(reading, "rb") as answers, tempfile.TemporaryFile() as said:
        try:
            # A group of its own: Ctrl-C then reaches this process alone, which ends the other one.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[writing], process_group=0
            )
        finally:
            os.close(writing)
        try:
            for line in answers:
                if line == END:
                    break
                answer: Answer = msgspec.json.decode(line, type=Answer)
                yield answer
            else:
                yield _death(task, process.wait(), said)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SHUTDOWN_TIMEOUT_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _death(task: Task, code: int, said: IO[bytes]) -> Failure:
    """Describe an end without a last word."""
    reason = KILLED if code == -signal.SIGKILL else describe_exit(code, said)
    return failure_of(task, reason, MACHINE_AT_FAULT)
