"""A worker: the process that scans for a supervisor.

    python -m deepscan.runtime.workers.worker PARENT READ WRITE

PARENT is the process ID of the supervisor. Messages come from the file descriptor READ and go to WRITE, see `protocol`;
what libraries print goes elsewhere. A worker asks for a job whenever one of its decoders is free. It ends with its
supervisor, however that ends.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from msgspec import structs

from deepscan.errors import DeepscanError, MachineError
from deepscan.naming import speak_as_command_line
from deepscan.options import ScanOptions
from deepscan.runtime.artifacts.artifacts import load_artifact
from deepscan.runtime.backends.batch_input import first_gpu
from deepscan.runtime.backends.selection import AUTO, open_backend, resolve_backend
from deepscan.runtime.cuda.nvdec import nvdec
from deepscan.runtime.faces.detections import DeviceFaceDetector
from deepscan.runtime.media.decoder_choice import DecoderCounts, DeviceDecoding
from deepscan.runtime.media.device_work import DeviceWork
from deepscan.runtime.media.frame_tasks import VideoJob
from deepscan.runtime.pipeline.frame_parts import FrameRecorder
from deepscan.runtime.pipeline.pipeline import UNOBSERVED, PipelineObserver
from deepscan.runtime.pipeline.pipeline_scan import ON_CPU, ON_GPU, Decoders, PipelineScan
from deepscan.runtime.pipeline.settings import resolve_settings
from deepscan.runtime.pipeline.trace import PipelineTrace, TraceWriter
from deepscan.runtime.system.processes import die_with_parent, limit_memory, usual_memory
from deepscan.runtime.workers.protocol import (
    Detector,
    Failed,
    Finished,
    FromWorker,
    Heartbeat,
    Job,
    JobRequest,
    LogLine,
    Ready,
    Start,
    ToWorker,
    receive_bytes,
    send,
    to_worker,
)

if TYPE_CHECKING:
    from deepscan.runtime.artifacts.artifacts import Artifact
    from deepscan.runtime.backends.contract import Backend
    from deepscan.runtime.faces.detections import FaceDetector
    from deepscan.runtime.pipeline.settings import ScanSettings
    from deepscan.runtime.workers.plan import WorkerPlan

HEARTBEAT_SECONDS: Final = 0.25
FIRST: Final = 0  # number of the only GPU that a worker sees
OUT_OF_MEMORY: Final = "it needs more memory than it may take: use a smaller --jobs, or a larger --memory"
log = logging.getLogger(__name__)


class SupervisorLink(logging.Handler):
    """Connection of a worker to its supervisor, for all threads; also a log handler that sends it the log records."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        super().__init__(logging.INFO)
        self._reading, self._writing = reading, writing
        self._sending = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Send a message; if the supervisor is gone, this process ends."""
        try:
            with self._sending:
                send(self._writing, message)
        except OSError:
            os._exit(1)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a log record; one that cannot be formatted is reported on stderr, as by any handler."""
        try:
            line = record.getMessage().encode(errors="backslashreplace").decode()
            self.send(LogLine(record.name, record.levelno, line))
        except Exception:
            self.handleError(record)

    def receive(self) -> ToWorker | None:
        """Wait for a message; None when the supervisor is gone."""
        data = receive_bytes(self._reading)
        return None if data is None else to_worker(data)


@dataclass(slots=True, eq=False)
class JobsInHand:
    """Jobs of a worker, the unfinished ones by index. Iterating asks the supervisor for one after the other."""

    link: SupervisorLink
    jobs: dict[int, VideoJob] = field(default_factory=dict)

    def __iter__(self) -> Iterator[VideoJob]:
        while True:
            self.link.send(JobRequest())
            message = self.link.receive()
            if not isinstance(message, Job):
                return
            job = VideoJob(message.index, os.fsdecode(message.path), planned=message.planned)
            self.jobs[job.index] = job
            yield job


def _open(artifact: Artifact, options: ScanOptions, plan: WorkerPlan) -> Backend:
    """Load a detector into the backend that the options name or `auto` selects."""
    candidate = resolve_backend(
        artifact.manifest, backend=options.backend or AUTO, precision=options.precision, device=plan.device
    )
    return open_backend(candidate, artifact, device=plan.device, threads=plan.threads)


def work(link: SupervisorLink) -> None:
    """Scan what the supervisor hands out until there are no more jobs."""
    start = link.receive()
    if not isinstance(start, Start):
        return
    options, plan = ScanOptions.from_json(start.options), start.plan
    if plan.device == "cpu":
        limit_memory(options.memory or usual_memory())
    with ExitStack() as held:
        observer: PipelineObserver = UNOBSERVED
        if start.trace is not None:
            writer = TraceWriter(os.fsdecode(start.trace), pid=os.getpid(), name=start.name)
            held.callback(writer.close)
            observer = PipelineTrace(writer)
        settings = resolve_settings(options)
        face_detector = settings.load_face_detector(plan.device)
        counts = DecoderCounts()
        on_gpu = _decoding(start, options, settings, face_detector, counts)
        backends = [_open(load_artifact(name), options, plan) for name in options.model]
        in_hand = JobsInHand(link)
        scan = PipelineScan(
            in_hand,
            settings=settings,
            face_detector=face_detector,
            backends=backends,
            decoders=Decoders(plan.decoders, max(1, plan.threads // plan.decoders), on_gpu),
            bounds=ON_CPU if plan.device == "cpu" else ON_GPU,
            observer=observer,
            recorder=FrameRecorder(os.fsdecode(start.frames)) if start.frames is not None else None,
        )
        detectors = tuple(
            Detector(
                model=scoring.model,
                backend=backend.name,
                precision=backend.precision,
                weights_sha256=scoring.weights_sha256,
                settings_sha256=scoring.settings_sha256,
            )
            for backend, scoring in zip(backends, settings.scoring, strict=True)
        )
        link.send(Ready(detectors, (on_gpu.nvdec.engines or None) if on_gpu is not None else None))
        ended = threading.Event()
        beating = threading.Thread(target=_beat, args=(scan, in_hand, counts, ended), daemon=True)
        beating.start()
        try:
            for results in scan:
                index = results[0].index
                del in_hand.jobs[index]
                link.send(Finished(index, tuple(structs.replace(result, path="") for result in results)))
        finally:
            ended.set()
            beating.join()
        link.send(_heartbeat(scan, in_hand, counts))


def _decoding(
    start: Start, options: ScanOptions, settings: ScanSettings, face_detector: FaceDetector, counts: DecoderCounts
) -> DeviceDecoding | None:
    """Return the decoding on the GPU, if it is asked for and the whole pipeline can use it.

    Raises:
        MachineError: `--decoder nvdec` was given and a package for it is missing.
    """
    decoder = options.decoder if start.plan.nvdec else "cpu"
    searchable = isinstance(face_detector, DeviceFaceDetector)
    if start.plan.device == "cpu" or decoder == "cpu" or settings.sampling.twice or not searchable:
        return None
    try:
        device = first_gpu()
        queue = device.queue()
        device.prepare()
    except MachineError as error:
        if decoder == "nvdec":
            raise
        log.warning("%s decodes on the CPU: %s", start.name, error)
        return None
    return DeviceDecoding(FIRST, device, DeviceWork(queue), nvdec(), decoder, counts)


def _beat(scan: PipelineScan, in_hand: JobsInHand, counts: DecoderCounts, ended: threading.Event) -> None:
    try:
        while not ended.wait(HEARTBEAT_SECONDS):
            in_hand.link.send(_heartbeat(scan, in_hand, counts))
    except Exception as error:  # without heartbeats the worker would seem to hang
        in_hand.link.send(Failed("MachineError", f"its heartbeat failed ({type(error).__name__}: {error})"))


def _heartbeat(scan: PipelineScan, in_hand: JobsInHand, counts: DecoderCounts) -> Heartbeat:
    return Heartbeat(
        frames=scan.progress.frames,
        faces=scan.progress.faces,
        videos=scan.progress.videos,
        moved=scan.progress.moved,
        shares={index: job.share_done for index, job in list(in_hand.jobs.items())},
        times=scan.stage_times(),
        by_nvdec=counts.nvdec,
        by_cpu=dict(counts.cpu),
    )


def main(parent: int, reading: int, writing: int) -> None:
    """Run a worker; the arguments are those of the command line."""
    speak_as_command_line()  # the supervisor's process puts its caller's names of options into the messages
    die_with_parent(parent)
    with open(reading, "rb") as received, open(writing, "wb") as sent:
        link = SupervisorLink(received, sent)
        logger = logging.getLogger("deepscan")
        logger.setLevel(logging.INFO)
        logger.addHandler(link)
        try:
            work(link)
        except DeepscanError as error:
            link.send(Failed(type(error).__name__, str(error)))
        except MemoryError:
            link.send(Failed("MachineError", OUT_OF_MEMORY))
        except Exception as error:  # libraries raise types of their own
            log.debug("%s", traceback.format_exc())
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            link.send(Failed("MachineError", f"it failed in an unforeseen way ({reason}): please report this"))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
