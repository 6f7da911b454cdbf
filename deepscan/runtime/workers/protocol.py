"""Messages between a supervisor and its workers: MessagePack records, each preceded by its length in bytes.

File names are sent as bytes, since not all of them are valid text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
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
        options: options of the scan, as from `ScanOptions.to_json`.
        plan: resources of the worker.
        name: name of the worker for messages.
        trace: path of this worker's part of the trace; None for no trace.
        frames: folder for the parts of a per-frame file; None for no such file.
    """

    options: bytes
    plan: WorkerPlan
    name: str
    trace: bytes | None
    frames: bytes | None = None


class Job(msgspec.Struct, frozen=True, tag=True):
    """One input to scan; the answer to `JobRequest`.

    Attributes:
        index: place of the input among the inputs.
        path: path of the input.
        planned: content of the input when the scan was planned; None if it is not known.
    """

    index: int
    path: bytes
    planned: PlannedContent | None = None


class NoMoreJobs(msgspec.Struct, frozen=True, tag=True):
    """The other answer to `JobRequest`: there is no further input."""


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of `VideoResult` that all results of one detector share, including failures."""

    model: str
    backend: str
    precision: str
    weights_sha256: str
    settings_sha256: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Message that a worker has loaded everything.

    Attributes:
        detectors: detectors in the order of their results.
        engines: number of NVDEC engines of its GPU; None if it decodes on the CPU.
    """

    detectors: tuple[Detector, ...]
    engines: int | None


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A log record of a worker: the logger's name, the level as in `logging`, and the formatted message."""

    logger: str
    level: int
    line: str


class JobRequest(msgspec.Struct, frozen=True, tag=True):
    """Request for a job, sent whenever a decoder of the worker is free."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """All results of the input with this index, one per detector. The supervisor fills in the paths."""

    index: int
    results: tuple[VideoResult, ...]


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Progress of a worker, sent several times a second and at the end; see `Progress`, too.

    Attributes:
        shares: share of each input in flight that is done, 0 to 1, by the input's index.
        times: times of its stages.
        by_nvdec: number of videos that NVDEC decoded.
        by_cpu: numbers of videos that fell back to the CPU although there is NVDEC, by reason.
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
    """Error for which a worker cannot go on: the name of its class, and its message."""

    kind: str
    text: str


ToWorker: TypeAlias = Start | Job | NoMoreJobs
FromWorker: TypeAlias = Ready | LogLine | JobRequest | Finished | Heartbeat | Failed


def send(stream: BinaryIO, message: ToWorker | FromWorker) -> None:
    """Write a message and flush.

    Raises:
        OSError: the other end is closed.
    """
    data = msgspec.msgpack.encode(message)
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive_bytes(stream: BinaryIO) -> bytes | None:
    """Wait for a message; return None at the end of the stream, even within a message."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


to_worker: Final[Callable[[bytes], ToWorker]] = msgspec.msgpack.Decoder(ToWorker).decode
from_worker: Final[Callable[[bytes], FromWorker]] = msgspec.msgpack.Decoder(FromWorker).decode
