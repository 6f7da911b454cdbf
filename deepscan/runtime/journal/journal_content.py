"""What a journal holds, and what of it is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from deepscan.runtime.journal.journal_lines import Entry, entry_of

FIRST_BYTES: Final = b'{"path": '


@dataclass(slots=True)
class JournalContent:
    """What a journal holds.

    Attributes:
        entries: its records, in the order in which they were written.
        damaged: how many lines are no records, or do not fit their checksum.
        torn: the last line was not written to its end.
        foreign: it is not empty, and has nothing that this version could have written.
    """

    entries: list[Entry] = field(default_factory=list)
    damaged: int = 0
    torn: bool = False
    foreign: bool = False


def read_journal(path: Path) -> JournalContent:
    """Read a journal, line by line; one that is not there is empty.

    Raises:
        OSError: it cannot be read.
    """
    found, offset, first = JournalContent(), 0, b""
    try:
        with open(path, "rb") as file:
            for line in file:
                first = first or line[: len(FIRST_BYTES)]
                entry = entry_of(line, offset)
                offset += len(line)
                if entry is not None:
                    found.entries.append(entry)
                elif line.endswith(b"\n"):
                    found.damaged += 1
                else:
                    found.torn = True
    except FileNotFoundError:
        return found
    # The beginning of a first line that was cut off is nothing to be kept.
    begun = not found.damaged and FIRST_BYTES.startswith(first)
    found.foreign = not found.entries and not begun
    return found


def lines_of(path: Path, entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the lines of some entries of a journal."""
    with open(path, "rb") as file:
        for entry in entries:
            file.seek(entry.place.offset)
            yield file.read(entry.place.length)


def moved_together(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries as they are when nothing lies between them."""
    offset = 0
    for entry in entries:
        yield replace(entry, place=entry.place._replace(offset=offset))
        offset += entry.place.length
