"""Content ids: short hashes that identify a file's content wherever the file was moved, for resuming."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from threading import Event
from typing import Final

import msgspec

from deepscan.errors import InputError
from deepscan.runtime.media.frames import ignore_progress
from deepscan.runtime.system.regular_files import open_regular_file, reading_failed

# Hashed of the head, the middle and the tail each. Files of up to three times this size are hashed whole.
SAMPLE_BYTES: Final = 1 << 20
READ_BYTES: Final = 1 << 20
DIGEST_BYTES: Final = 16
# Device, inode, size, times of the last change of the content and of the status, in nanoseconds.
SIGNATURE: Final = struct.Struct("<QQqqq")


class PlannedContent(msgspec.Struct, frozen=True):
    """Content of a file when the scan was planned.

    Attributes:
        content: content id; None if the file could not be read.
        signature: `signature_of` the file before it was read; None without a content id.
        full: whether content ids cover all bytes.
    """

    content: str | None
    signature: bytes | None
    full: bool


@dataclass(frozen=True, slots=True)
class Contents:
    """Content ids of several files.

    Attributes:
        ids: in the order of the paths; None for files that could not be read.
        signatures: `signature_of` each file before it was read; None without a content id.
        problems: reasons for missing ids, by the index of the path.
        full: whether the ids cover all bytes.
    """

    ids: tuple[str | None, ...]
    signatures: tuple[bytes | None, ...]
    problems: dict[int, InputError]
    full: bool

    def planned(self, index: int) -> PlannedContent:
        """Return the planned content of one file."""
        return PlannedContent(self.ids[index], self.signatures[index], self.full)


def signature_of(found: os.stat_result) -> bytes:
    """Return a signature that changes when a file is written to, replaced or moved; equal ones mean no change."""
    return SIGNATURE.pack(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def content_id(path: str, *, full: bool) -> str:
    """Return `fast:<size>:<hex>` or `full:<size>:<hex>`: the size in bytes and a BLAKE2b hash of 16 bytes.

    The fast id covers the first, the middle and the last MiB, or all of a file of up to 3 MiB. In a larger file it
    misses changes elsewhere that keep the size, such as bytes damaged on a disk or edited in place. Encoding a video
    again changes its head or tail, where containers keep their tables, and nearly always its size.

    Args:
        path: path of a regular file; nothing else is opened, and a pipe is not waited for.
        full: whether to read all bytes.

    Raises:
        InputError: the path is no regular file, or the file is empty or cannot be read.
    """
    return _content_id(path, full=full, stop=Event())[0]


def content_ids(
    paths: Sequence[str], *, full: bool, threads: int, progress: Callable[[int], None] | None = None
) -> Contents:
    """Return the content ids of many files; a file's problem is kept, not raised.

    Args:
        paths: paths of the files.
        full: whether to read all bytes; see `content_id`.
        threads: number of files to read at once.
        progress: called, in the caller's thread, with the number of files done; an exception from it, or Ctrl-C, stops
            the reading.
    """
    ids: list[str | None] = []
    signatures: list[bytes | None] = []
    problems: dict[int, InputError] = {}
    stop = Event()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deepscan-content")
    try:
        for found in pool.map(partial(_id_or_problem, full=full, stop=stop), paths):
            if isinstance(found, InputError):
                problems[len(ids)] = found
            content, signature = (None, None) if isinstance(found, InputError) else found
            ids.append(content)
            signatures.append(signature)
            if progress is not None:
                progress(len(ids))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return Contents(tuple(ids), tuple(signatures), problems, full)


def content_of(
    descriptor: int,
    *,
    full: bool,
    stop: Event | None = None,
    moved: Callable[[], None] = ignore_progress,
) -> str:
    """Return the content id of an open file, whatever its position; see `content_id`.

    Args:
        descriptor: descriptor of the file.
        full: whether to read all bytes.
        stop: stops the reading when set.
        moved: called for every MiB that is read.

    Raises:
        UnreachableInput: the file cannot be read.
    """
    digest = blake2b(digest_size=DIGEST_BYTES)
    try:
        size = os.fstat(descriptor).st_size
        for start, count in [(0, size)] if full or size <= 3 * SAMPLE_BYTES else _samples(size):
            _feed(digest, descriptor, start, count, stop or Event(), moved)
    except OSError as error:
        raise reading_failed(error) from error
    return f"{'full' if full else 'fast'}:{size}:{digest.hexdigest()}"


def _id_or_problem(path: str, *, full: bool, stop: Event) -> tuple[str, bytes] | InputError:
    try:
        return _content_id(path, full=full, stop=stop)
    except InputError as problem:
        return problem


def _content_id(path: str, *, full: bool, stop: Event) -> tuple[str, bytes]:
    with open_regular_file(path) as file:
        try:
            signature = signature_of(os.fstat(file.fileno()))
        except OSError as error:
            raise reading_failed(error) from error
        return content_of(file.fileno(), full=full, stop=stop), signature


def _samples(size: int) -> list[tuple[int, int]]:
    return [(start, SAMPLE_BYTES) for start in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES)]


def _feed(digest: blake2b, descriptor: int, start: int, count: int, stop: Event, moved: Callable[[], None]) -> None:
    """Hash at most `count` bytes, so that a growing file ends."""
    while count and not stop.is_set() and (data := os.pread(descriptor, min(count, READ_BYTES), start)):
        moved()
        digest.update(data)
        start, count = start + len(data), count - len(data)
