"""What a supervisor and its workers send each other: records in MessagePack, each behind its length in bytes.

Names of files travel as bytes, as some are no valid text.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final, TypeAlias

import msgspec

from deepscan.results import VideoResult
from deepscan.runtime.media.content import PlannedContent
from deepscan.runtime.pipeline.pipeline import StageTimes
from deepscan.runtime.workers.plan import WorkerPlan

LENGTH: Final = struct.Struct("<I")


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message to a worker.

    Attributes:
        options: of the scan, as `ScanOptions.to_json` gives them.
        plan: of the worker.
        name: of the worker, for messages.
        trace: file for the part of the trace that this worker writes; None for no trace.
    """

    options: bytes
    plan: WorkerPlan
    name: str
    trace: bytes | None


class Job(msgspec.Struct, frozen=True, tag=True):
    """One input to scan; the answer to `JobRequest`.

    Attributes:
        index: its place among the inputs.
        path: of it.
        planned: what it held when the scan was planned; None if nobody looked.
    """

    index: int
    path: bytes
    planned: PlannedContent | None = None


class NoMoreJobs(msgspec.Struct, frozen=True, tag=True):
    """There is no further input; the other answer to `JobRequest`."""


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """What all results of one detector share, also those of inputs that could not be scanned."""

    model: str
    backend: str
    precision: str
    weights_sha256: str
    settings_sha256: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A worker has loaded everything.

    Attributes:
        detectors: in the order of their results.
        engines: how many NVDEC engines its GPU has; None where it decodes on the CPU.
    """

    detectors: tuple[Detector, ...]
    engines: int | None


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A record of a worker's log.

    Attributes:
        logger: name of the logger.
        level: of `logging`.
        line: the message.
    """

    logger: str
    level: int
    line: str


class JobRequest(msgspec.Struct, frozen=True, tag=True):
    """One of a worker's decoders is free."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """All results of one input; a worker leaves out their paths, and the supervisor fills them in.

    Attributes:
        index: place of the input among the inputs.
        results: one per detector, in order.
    """

    index: int
    results: tuple[VideoResult, ...]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far a worker is; sent several times a second, and at the end.

    Attributes:
        frames: looked at by this process.
        faces: seen.
        videos: finished.
        moved: changes whenever something in it moves, see `Progress`.
        shares: how much of each input in flight is done, 0 to 1, by its index.
        times: of its stages.
        by_nvdec: videos that NVDEC decoded.
        by_cpu: videos that the CPU decoded although there is NVDEC, by the reason.
    """

    frames: int
    faces: int
    videos: int
    moved: float
    shares: dict[int, float]
    times: list[StageTimes]
    by_nvdec: int
    by_cpu: dict[str, int]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A worker cannot go on.

    Attributes:
        kind: name of the error's class.
        text: of the error.
    """

    kind: str
    text: str


ToWorker: TypeAlias = Start | Job | NoMoreJobs
FromWorker: TypeAlias = Ready | LogLine | JobRequest | Finished | Heartbeat | Failed


def send(stream: BinaryIO, message: ToWorker | FromWorker) -> None:
    """Write a message at once.

    Raises:
        OSError: nobody reads any more.
    """
    data = msgspec.msgpack.encode(message)
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive_bytes(stream: BinaryIO) -> bytes | None:
    """Wait for a message; return None after the last one, and for a part of one."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def to_worker(data: bytes) -> ToWorker:
    """Decode a message to a worker."""
    message: ToWorker = msgspec.msgpack.decode(data, type=ToWorker)
    return message


def from_worker(data: bytes) -> FromWorker:
    """Decode a message from a worker."""
    message: FromWorker = msgspec.msgpack.decode(data, type=FromWorker)
    return message
