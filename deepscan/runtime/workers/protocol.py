"""What a supervisor and its workers tell each other: records in MessagePack, each behind its length in bytes.

Names of files travel as bytes, as some are no valid text.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final, TypeAlias

import msgspec

from deepscan.results import VideoResult
from deepscan.runtime.media.content import PlannedContent
from deepscan.runtime.pipeline.pipeline import StageTimes
from deepscan.runtime.system.machine import Device

LENGTH: Final = struct.Struct("<I")


class Setup(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message to a worker.

    Attributes:
        options: of the scan, see `ScanOptions.to_json`.
        device: where it infers; of GPUs it sees one alone.
        decoders: videos decoded at once.
        threads: of the processor.
        trace: file for the part of the trace that this worker writes.
        name: of the worker, for people.
        memory_bytes: what the process may take; None for no limit of its own.
    """

    options: bytes
    device: Device
    decoders: int
    threads: int
    trace: bytes | None
    name: str
    memory_bytes: int | None


class Problem(msgspec.Struct, frozen=True):
    """Why a file cannot be scanned, known beforehand.

    Attributes:
        kind: name of the error's class.
        text: of the error.
    """

    kind: str
    text: bytes


class Job(msgspec.Struct, frozen=True, tag=True):
    """A file to scan; the answer to `JobRequest`.

    Attributes:
        index: its place among the inputs.
        path: of it.
        problem: why it cannot be scanned, where that is known already.
        planned: what it held when the scan was planned, if somebody wants to know what was read.
    """

    index: int
    path: bytes
    problem: Problem | None
    planned: PlannedContent | None = None


class NoMoreJobs(msgspec.Struct, frozen=True, tag=True):
    """There is no further file; the other answer to `JobRequest`."""


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """What all results of one detector share, also those of files that could not be scanned."""

    model: str
    backend: str
    precision: str
    weights_sha256: str
    settings_sha256: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A worker has loaded everything.

    Attributes:
        detectors: in the order of their results.
        engines: how many NVDEC engines its GPU has, where it decodes on it.
    """

    detectors: tuple[Detector, ...]
    engines: int | None


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A line for people."""

    line: str


class JobRequest(msgspec.Struct, frozen=True, tag=True):
    """A worker's decoder is free."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """One result of a file; its path is left out.

    Attributes:
        result: `index` and `row` are right.
    """

    result: VideoResult


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How far a worker is; sent every now and then, and at the end.

    Attributes:
        frames: looked at by this process.
        faces: seen.
        videos: finished.
        moved: changes whenever something in it moves, see `Progress`.
        shares: how much of each file in flight is done, by its index.
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


ToWorker: TypeAlias = Setup | Job | NoMoreJobs
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
    """Wait for a message; None where there comes none any more, or only a part of one."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def to_worker(data: bytes) -> ToWorker:
    """Read a message to a worker."""
    message: ToWorker = msgspec.msgpack.decode(data, type=ToWorker)
    return message


def from_worker(data: bytes) -> FromWorker:
    """Read a message from a worker."""
    message: FromWorker = msgspec.msgpack.decode(data, type=FromWorker)
    return message
