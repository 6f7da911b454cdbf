"""What a file holds, as a short name: results are known again by it, wherever the file was moved."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from threading import Event
from typing import BinaryIO, Final

from deepscan.errors import InputError, UnreadableInput
from deepscan.runtime.video.regular_files import open_regular_file

# Of the head, the middle and the tail each. Files of up to three times as much are hashed whole.
SAMPLE_BYTES: Final = 1 << 20
READ_BYTES: Final = 1 << 20
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Contents:
    """Content ids of several files.

    Attributes:
        ids: in the order of the paths; None where there is none.
        problems: why there is none, by the place of the path.
    """

    ids: tuple[str | None, ...]
    problems: dict[int, InputError]


def content_id(path: str, *, full: bool) -> str:
    """Return `fast:<size>:<hex>` or `full:<size>:<hex>`: the size in bytes and a BLAKE2b hash of 16 bytes.

    The fast one reads the first and last MiB and the MiB in the middle, or all of a file of up to 3 MiB. In a larger
    file it does not see a change elsewhere that keeps the size: bytes damaged on a disk, or a file edited in place.
    Encoding a video again changes its head or tail, where containers keep their tables, and nearly always its size.

    Args:
        path: of a regular file; nothing else is opened, and a pipe is not waited for.
        full: whether to read all bytes.

    Raises:
        InputError: it is no file, is empty, or cannot be read.
    """
    return _content_id(path, full=full, stop=Event())


def content_ids(
    paths: Sequence[str], *, full: bool, threads: int, progress: Callable[[int], None] | None = None
) -> Contents:
    """Return the content ids of many files; a file's problem is kept, not raised.

    Args:
        paths: of the files.
        full: whether to read all bytes; see `content_id`.
        threads: how many files are read at once.
        progress: is told, in the caller's thread, how many files are done. What it raises, and Ctrl-C, end the reading.
    """
    ids: list[str | None] = []
    problems: dict[int, InputError] = {}
    stop = Event()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deepscan-content")
    try:
        for found in pool.map(partial(_id_or_problem, full=full, stop=stop), paths):
            if isinstance(found, InputError):
                problems[len(ids)] = found
            ids.append(found if isinstance(found, str) else None)
            if progress is not None:
                progress(len(ids))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return Contents(tuple(ids), problems)


def _id_or_problem(path: str, *, full: bool, stop: Event) -> str | InputError:
    try:
        return _content_id(path, full=full, stop=stop)
    except InputError as problem:
        return problem


def _content_id(path: str, *, full: bool, stop: Event) -> str:
    with open_regular_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            digest = blake2b(digest_size=DIGEST_BYTES)
            for start, count in [(0, size)] if full or size <= 3 * SAMPLE_BYTES else _samples(size):
                _feed(digest, file, start, count, stop)
        except OSError as error:
            raise UnreadableInput(f"Reading the file failed ({error.strerror}): check the disk.") from error
    return f"{'full' if full else 'fast'}:{size}:{digest.hexdigest()}"


def _samples(size: int) -> list[tuple[int, int]]:
    return [(start, SAMPLE_BYTES) for start in (0, (size - SAMPLE_BYTES) // 2, size - SAMPLE_BYTES)]


def _feed(digest: blake2b, file: BinaryIO, start: int, count: int, stop: Event) -> None:
    """Hash `count` bytes, and no more, or a file that grows as fast as it is read would never end."""
    file.seek(start)
    while count and not stop.is_set() and (data := file.read(min(count, READ_BYTES))):
        digest.update(data)
        count -= len(data)
