"""What a journal holds, and what of it is damaged."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deepscan.runtime.store.journal_lines import Entry, entry_of

FIRST_BYTES: Final = b'{"path": "'
# The beginning of a journal's first line, wherever it was cut off.
BEGUN: Final = re.compile(rb'\{"path": "(?:[^"\\]|\\.)*(?:\\|"(?:, "status": ".*)?)?', re.DOTALL)


@dataclass(slots=True)
class JournalContent:
    """What a journal holds.

    Attributes:
        entries: its records, in the order in which they were written.
        damaged: how many lines are no records, or do not fit their checksum.
        end: bytes up to the end of the last line that was written to its end.
        torn: there is more behind it.
        foreign: it is not empty, and has nothing that this version could have written.
    """

    entries: list[Entry] = field(default_factory=list)
    damaged: int = 0
    end: int = 0
    torn: bool = False
    foreign: bool = False


def read_journal(path: Path, *, entries: bool = True) -> JournalContent:
    """Read a journal, line by line; one that is not there is empty.

    Args:
        path: of the journal.
        entries: whether all of them are wanted; else it is read until it is clear whose file it is.

    Raises:
        OSError: it cannot be read.
    """
    found, last = JournalContent(), b""
    try:
        with open(path, "rb") as file:
            for line in file:
                entry, last = entry_of(line, found.end), line
                if not line.endswith(b"\n"):
                    found.torn = True
                    break
                found.end += len(line)
                if entry is None:
                    found.damaged += 1
                    continue
                found.entries.append(entry)
                if not entries:
                    return found
    except FileNotFoundError:
        return found
    # The beginning of a first line that was cut off is nothing to be kept.
    begun = not found.damaged and (FIRST_BYTES.startswith(last) or BEGUN.fullmatch(last) is not None)
    found.foreign = not found.entries and not begun
    return found
