"""A worker: the process that scans for a supervisor.

    python -m deepscan.runtime.workers.worker PARENT READ WRITE

PARENT is the supervisor's process; messages come from the file descriptor READ and go to WRITE, see `worker_messages`.
Libraries print to stderr what they like. A worker asks for a file whenever one of its decoders is free, so that files
are handed out as they finish. It ends with its supervisor, however that ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from deepscan import errors
from deepscan.errors import DeepscanError, InputError, MachineError
from deepscan.naming import speak_as_command_line
from deepscan.options import DecoderChoice, ScanOptions
from deepscan.runtime.backends.backend_choice import resolve_backend
from deepscan.runtime.backends.batch_input import first_gpu
from deepscan.runtime.cuda.nvdec import nvdec
from deepscan.runtime.faces.detections import DeviceFaceDetector
from deepscan.runtime.media.decoder_choice import DecoderCounts, DeviceDecoding
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.pipeline_scan import ON_CPU, ON_GPU, Decoders, PipelineScan
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.pipeline.trace import TraceWriter
from deepscan.runtime.system.processes import die_with_parent, limit_memory
from deepscan.runtime.workers.protocol import (
    Detector,
    Failed,
    Finished,
    FromWorker,
    Heartbeat,
    Job,
    JobRequest,
    LogLine,
    Problem,
    Ready,
    Setup,
    ToWorker,
    receive_bytes,
    send,
    to_worker,
)

if TYPE_CHECKING:
    from deepscan.runtime.pipeline.settings import ScanSettings

STANDING_SECONDS: Final = 0.25
FIRST: Final = 0  # the one GPU that a worker sees
OUT_OF_MEMORY: Final = "it needs more memory than it may take: use a smaller --jobs, or a larger --memory"


class Supervisor:
    """The other end of the pipes, as a worker sees it. Any thread may tell it something.

    Args:
        reading: from it.
        writing: to it.
    """

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._lock = threading.Lock()

    def tell(self, message: FromWorker) -> None:
        """Send a message; where nobody listens any more, this process ends."""
        try:
            with self._lock:
                send(self._writing, message)
        except OSError:
            os._exit(1)

    def hear(self) -> ToWorker | None:
        """Wait for a message; None when the supervisor is gone."""
        data = receive_bytes(self._reading)
        return None if data is None else to_worker(data)

    def jobs(self, taken: dict[int, VideoJob]) -> Iterator[VideoJob]:
        """Ask for files until there is none left.

        Args:
            taken: gets each job by its index.
        """
        while True:
            self.tell(JobRequest())
            message = self.hear()
            if not isinstance(message, Job):
                return
            job = VideoJob(
                message.index, os.fsdecode(message.path), _error_of(message.problem), planned=message.planned
            )
            taken[job.index] = job
            yield job


def _error_of(problem: Problem | None) -> InputError | None:
    """Return the error that a problem is the record of."""
    if problem is None:
        return None
    kind: type[InputError] = getattr(errors, problem.kind)
    return kind(os.fsdecode(problem.text))


def work(supervisor: Supervisor) -> None:
    """Scan what the supervisor hands out, until it has no more."""
    setup = supervisor.hear()
    if not isinstance(setup, Setup):
        return
    if setup.memory_bytes is not None:
        limit_memory(setup.memory_bytes)
    with ExitStack() as held:
        trace = None
        if setup.trace is not None:
            trace = TraceWriter(os.fsdecode(setup.trace), pid=os.getpid(), name=setup.name)
            held.callback(trace.close)
        options = ScanOptions.from_json(setup.options)
        settings = resolve_settings(options, device=setup.device)
        counts = DecoderCounts()
        on_gpu = _decoding(setup, options.decoder, settings, counts, supervisor)
        backends = [
            resolve_backend(
                artifact,
                backend=options.backend or "auto",
                precision=options.precision,
                device=setup.device,
                threads=setup.threads,
                report=lambda line: supervisor.tell(LogLine(line)),
            )
            for artifact in settings.artifacts
        ]
        taken: dict[int, VideoJob] = {}
        scan = PipelineScan(
            supervisor.jobs(taken),
            settings=settings,
            backends=backends,
            decoders=Decoders(setup.decoders, max(1, setup.threads // setup.decoders), on_gpu),
            bounds=ON_CPU if setup.device == "cpu" else ON_GPU,
            trace=trace,
        )
        detectors = tuple(
            Detector(
                model=verdict.model,
                backend=backend.name,
                precision=backend.precision,
                weights_sha256=verdict.weights_sha256,
                settings_sha256=verdict.settings_sha256,
            )
            for backend, verdict in zip(backends, settings.verdicts, strict=True)
        )
        supervisor.tell(Ready(detectors, (on_gpu.nvdec.engines or None) if on_gpu is not None else None))
        ended = threading.Event()
        standing = threading.Thread(target=_stand, args=(supervisor, scan, taken, counts, ended), daemon=True)
        standing.start()
        try:
            _hand_over(scan, supervisor, taken, len(detectors))
        finally:
            ended.set()
            standing.join()
        supervisor.tell(_standing(scan, taken, counts))


def _hand_over(scan: PipelineScan, supervisor: Supervisor, taken: dict[int, VideoJob], detectors: int) -> None:
    """Send each result; a file is done with the last of its results."""
    missing: dict[int, int] = {}
    for result in scan:
        content = taken[result.index].content
        missing[result.index] = missing.get(result.index, detectors) - 1
        if not missing[result.index]:
            del missing[result.index], taken[result.index]
        supervisor.tell(Finished(msgspec.structs.replace(result, path="", content=content)))


def _decoding(
    setup: Setup, decoder: DecoderChoice, settings: ScanSettings, counts: DecoderCounts, supervisor: Supervisor
) -> DeviceDecoding | None:
    """Return what decodes on the GPU, where that was asked for and can be used all the way.

    Raises:
        MachineError: it must be the GPU, and a package is missing for that.
    """
    searchable = isinstance(settings.face_detector, DeviceFaceDetector)
    if setup.device == "cpu" or decoder == "cpu" or settings.sampling.twice or not searchable:
        return None
    try:
        device = first_gpu()
        queue = device.queue()
        device.prepare()
    except MachineError as error:
        if decoder == "nvdec":
            raise
        supervisor.tell(LogLine(f"{setup.name} decodes on the CPU: {error}"))
        return None
    return DeviceDecoding(FIRST, device, DeviceWork(queue), nvdec(), decoder, counts)


def _stand(
    supervisor: Supervisor,
    scan: PipelineScan,
    taken: dict[int, VideoJob],
    counts: DecoderCounts,
    ended: threading.Event,
) -> None:
    while not ended.wait(STANDING_SECONDS):
        supervisor.tell(_standing(scan, taken, counts))


def _standing(scan: PipelineScan, taken: dict[int, VideoJob], counts: DecoderCounts) -> Heartbeat:
    return Heartbeat(
        frames=scan.progress.frames,
        faces=scan.progress.faces,
        videos=scan.progress.videos,
        moved=scan.progress.moved,
        shares={index: job.share_done for index, job in list(taken.items())},
        times=scan.stage_times(),
        by_nvdec=counts.nvdec,
        by_cpu=dict(counts.cpu),
    )


def main(parent: int, reading: int, writing: int) -> None:
    """Be a worker of a process."""
    speak_as_command_line()  # the process that gets the messages renames the options in them
    die_with_parent(parent)
    with open(reading, "rb") as received, open(writing, "wb") as sent:
        supervisor = Supervisor(received, sent)
        try:
            work(supervisor)
        except DeepscanError as error:
            supervisor.tell(Failed(type(error).__name__, str(error)))
        except MemoryError:
            supervisor.tell(Failed("MachineError", OUT_OF_MEMORY))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
