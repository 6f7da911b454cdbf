"""One line of the journal: a record with a checksum of its own, so that a single flipped bit is noticed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from deepscan.results import Status, VideoResult

DETAILS: Final = b', "track_details": '
CHECK: Final = b', "check": "%08x"}\n'
# Earlier versions took such failures for facts about a content: they say nothing about it.
UNREACHABLE: Final = (
    "The file cannot be opened (",
    "Reading the file failed (",
    "Decoding it failed in an unforeseen way (OSError(",
)
CHECK_BYTES: Final = len(CHECK % 0)


class Place(NamedTuple):
    """Where a line is.

    Attributes:
        offset: of the line in the journal, in bytes.
        head: bytes before the track details; with a closing brace they are JSON.
        length: bytes of the line, newline included.
    """

    offset: int
    head: int
    length: int

    @classmethod
    def of(cls, line: bytes, offset: int) -> Place:
        """Return the place of a line that begins at `offset`."""
        # Quotes inside a JSON text are escaped, so no path or reason can look like the name of a field.
        return cls(offset, line.index(DETAILS), len(line))


class Entry(msgspec.Struct, frozen=True):
    """What planning needs to know of a line.

    Attributes:
        place: where it is.
        path: of the file, as it was given to the scan.
        content: of the file that was scanned, see `content_id`; None if it could not be read.
        model, weights_sha256, settings_sha256: what it was scanned with.
        computation: the backend that computed it, and its precision.
        status: what became of it.
    """

    place: Place
    path: str
    content: str | None
    model: str
    weights_sha256: str
    settings_sha256: str
    computation: tuple[str, str]
    status: Status


@cache
def _computation(backend: str, precision: str) -> tuple[str, str]:
    return backend, precision


def line_of(result: VideoResult) -> bytes:
    """Return a result's line: its record with `content`, `peak_clips` and `check`, in ASCII, newline included.

    `check` is the CRC-32 of all that comes before it in the line.
    """
    record = result.to_dict()
    tail = {name: record.pop(name) for name in ("peak_clips", "track_details")}
    return encoded(record | {"content": result.content} | tail)


def encoded(record: Mapping[str, Any]) -> bytes:
    """Return the line of a record that has no `check` yet."""
    body = json.dumps(record, allow_nan=False).encode("ascii")[:-1]
    return body + CHECK % crc32(body)


def decoded(line: bytes) -> dict[str, Any]:
    """Return the record of a whole line, without its `check`."""
    record: dict[str, Any] = json.loads(line)
    del record["check"]
    return record


def decoded_head(head: bytes) -> dict[str, Any]:
    """Return the record of a line's head: all but the track details."""
    record: dict[str, Any] = json.loads(head + b"}")
    return record


def entry_of(line: bytes, offset: int) -> Entry | None:
    """Return what a line tells, or None if it is damaged or no record of a journal.

    Args:
        line: whole, newline included.
        offset: of the line in the journal.
    """
    body = line[:-CHECK_BYTES]
    if line != body + CHECK % crc32(body) or DETAILS not in body:
        return None
    place = Place.of(line, offset)
    try:
        record = decoded_head(line[: place.head])
        result = VideoResult.from_dict(record)
    except (ValueError, TypeError, RecursionError):
        return None
    unreachable = result.status == "unreadable" and result.reason.startswith(UNREACHABLE)
    return Entry(
        place=place,
        path=result.path,
        content=None if unreachable else result.content,
        # The same few texts in every line: each is kept once.
        model=sys.intern(result.model),
        weights_sha256=sys.intern(result.weights_sha256),
        settings_sha256=sys.intern(result.settings_sha256),
        computation=_computation(result.backend, result.precision),
        status=result.status,
    )
