"""Content ids: short hashes that identify a file's content wherever the file was moved, for resuming."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from threading import Event
from typing import Final

import msgspec

from deepscan.errors import InputError
from deepscan.runtime.media.frames import ignore_progress
from deepscan.runtime.system.regular_files import open_regular_file, reading_failed

# Read at once, and hashed of the head, the middle and the tail each.
SAMPLE_BYTES: Final = 1 << 20
DIGEST_BYTES: Final = 16
# Device, inode, size, times of the last change of the content and of the status, in nanoseconds.
SIGNATURE: Final = struct.Struct("<QQqqq")


class PlannedContent(msgspec.Struct, frozen=True):
    """Content of a file when the scan was planned: its id, and its `signature_of` before it was read.

    Both are None if the file could not be read. `full` tells whether content ids cover all bytes.
    """

    content: str | None
    signature: bytes | None
    full: bool


def signature_of(found: os.stat_result) -> bytes:
    """Return a signature that changes when a file is written to, replaced or moved; equal ones mean no change."""
    return SIGNATURE.pack(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def content_id(path: str, *, full: bool) -> str:
    """Return the content id of a file; see `content_of`, and `planned_content` for the errors."""
    with open_regular_file(path) as file:
        return content_of(file.fileno(), full=full, moved=ignore_progress)


def planned_content(path: str, *, full: bool, moved: Callable[[], None] = ignore_progress) -> PlannedContent:
    """Return the content of a file; nothing but a regular file is opened, and a pipe is not waited for.

    Raises:
        InputError: the path is no regular file, or the file is empty or cannot be read.
    """
    with open_regular_file(path) as file:
        try:
            signature = signature_of(os.fstat(file.fileno()))
        except OSError as error:
            raise reading_failed(error) from error
        return PlannedContent(content_of(file.fileno(), full=full, moved=moved), signature, full)


def planned_contents(
    paths: Sequence[str], *, full: bool, threads: int, progress: Callable[[int], None] = lambda _: None
) -> list[PlannedContent]:
    """Return the contents of many files, without an id for those that cannot be read.

    `progress` is called in the caller's thread with the number of files done; an exception from it, or Ctrl-C, stops
    the reading.
    """
    stop = Event()

    def go_on() -> None:
        if stop.is_set():
            raise CancelledError

    def content(path: str) -> PlannedContent:
        with suppress(InputError):
            return planned_content(path, full=full, moved=go_on)
        return PlannedContent(None, None, full)

    found = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deepscan-content")
    try:
        for one in pool.map(content, paths):
            found.append(one)
            progress(len(found))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return found


def content_of(descriptor: int, *, full: bool, moved: Callable[[], None]) -> str:
    """Return `fast:<size>:<hex>` or `full:<size>:<hex>` of an open file: its size in bytes and a BLAKE2b of 16 bytes.

    The fast id covers the first, the middle and the last MiB, or all of a file of up to 3 MiB. In a larger file it
    misses changes elsewhere that keep the size, such as bytes damaged on a disk or edited in place. Encoding a video
    again changes its head or tail, where containers keep their tables, and nearly always its size. `moved` is called
    for every MiB that is read.

    Raises:
        UnreachableInput: the file cannot be read.
    """
    digest = blake2b(digest_size=DIGEST_BYTES)
    try:
        size = os.fstat(descriptor).st_size
        parts = [(start, SAMPLE_BYTES) for start in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES)]
        for start, count in [(0, size)] if full or size <= 3 * SAMPLE_BYTES else parts:
            # At most `count` bytes, so that a growing file ends.
            while count and (data := os.pread(descriptor, min(count, SAMPLE_BYTES), start)):
                moved()
                digest.update(data)
                start, count = start + len(data), count - len(data)
    except OSError as error:
        raise reading_failed(error) from error
    return f"{'full' if full else 'fast'}:{size}:{digest.hexdigest()}"
