"""Rows of the JSONL of a scan, for `deepscan show`: the latest undamaged record of each row."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deepscan.errors import UsageError
from deepscan.results import TrackResult, VideoResult
from deepscan.runtime.store.identity import RowKey
from deepscan.runtime.store.journal import entry_of, journal_path
from deepscan.runtime.store.writers import is_output

CHECKED: Final = b'"check": "'
NAMES_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class StoredResults:
    """Rows of a JSONL.

    Attributes:
        path: path of the JSONL.
        rows: latest record of each path and detector with the offset of its line, in the order of the first records.
        damaged: number of lines that are torn, altered or not records.
    """

    path: str
    rows: list[tuple[VideoResult, int]]
    damaged: int

    def of_video(self, name: str) -> list[tuple[VideoResult, int]]:
        """Return the rows, one per detector, of the one video whose path is, or ends in, `name`."""
        paths = dict.fromkeys(row.path for row, _ in self.rows)
        found: list[str] = []
        for matches in (str.__eq__, lambda path, end: path.endswith(f"/{end.lstrip('/')}"), str.endswith):
            found = found or [path for path in paths if matches(path, name)]
        if not found:
            raise UsageError(f"No row of {self.path} is about {name}: run `deepscan show` without it to see the rows.")
        if len(found) > 1:
            listed = ", ".join(found[:NAMES_SHOWN]) + (", ..." if len(found) > NAMES_SHOWN else "")
            raise UsageError(f"{len(found)} videos have names that end in {name} ({listed}): give more of the path.")
        return [(row, offset) for row, offset in self.rows if row.path == found[0]]

    def tracks_at(self, offset: int) -> Sequence[TrackResult]:
        """Return the tracks of the row whose line begins at an offset; none if the line is gone."""
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                return VideoResult.from_dict(json.loads(file.readline())).details
        except OSError as error:
            raise _cannot_read(self.path, error) from error
        except (ValueError, TypeError, RecursionError):
            return ()


def stored_results(path: str) -> StoredResults:
    """Read the rows of a JSONL, which may still be growing.

    Raises:
        UsageError: the file cannot be read, or none of its lines is a record.
    """
    rows: dict[RowKey, tuple[VideoResult, int]] = {}
    damaged = end = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                offset, end = end, end + len(line)
                row = _row_of(line)
                if row is not None:
                    rows[RowKey.of(row.path, row.model)] = row, offset
                elif line.strip():
                    damaged += 1
    except OSError as error:
        raise _cannot_read(path, error) from error
    if damaged and not rows:
        raise UsageError(f"{path} holds no results of a scan: give the .jsonl that `deepscan scan` has written.")
    return StoredResults(path, list(rows.values()), damaged)


def jsonl_path(path: str) -> str:
    """Return the path of the JSONL; for an output, such as a CSV, that of the JSONL beside it, which must exist."""
    if not is_output(path):
        return path
    beside = str(journal_path(Path(path)))
    if os.path.exists(beside):
        return beside
    if not os.path.exists(path):
        return path  # reading it gives the usual error
    raise UsageError(
        f"{path} does not hold everything, and there is no {os.path.basename(beside)} beside it: give the .jsonl that "
        "`deepscan scan` has written."
    )


def _row_of(line: bytes) -> VideoResult | None:
    """Return the row of a line, or None if the line is damaged; lines without a checksum are accepted."""
    if CHECKED in line and entry_of(line, 0) is None:
        return None
    try:
        return VideoResult.from_dict(json.loads(line) | {"track_details": ()})
    except (ValueError, TypeError, RecursionError):
        return None


def _cannot_read(path: str, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be read ({error.strerror}): give the .jsonl that `deepscan scan` has written.")
