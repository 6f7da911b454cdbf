"""Inputs that are left to scan, and records that rows show, from what earlier scans have written."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deepscan.results import SUCCEEDED, row_number
from deepscan.runtime.store.identity import DetectorKey, RowKey
from deepscan.runtime.store.journal import Entry, Place


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """What is done and what is not; each input is in one of the three.

    Attributes:
        done: inputs whose results are there: where, for each detector in order, by the input's index.
        to_scan: indices of the inputs to be scanned, in order.
        copies: of inputs to be scanned: the later ones that hold the same, whose results will be the same.
    """

    done: Mapping[int, tuple[Place, ...]]
    to_scan: tuple[int, ...]
    copies: Mapping[int, tuple[int, ...]]


def plan_resume(
    contents: Sequence[str | None],
    detectors: Sequence[DetectorKey],
    entries: Sequence[Entry],
    *,
    retry_failed: bool = False,
) -> ResumePlan:
    """Plan a scan.

    An input is done if there is a record of what it holds for every detector, whatever the file was called then. The
    record must have been computed as this scan computes, see `accepted_computations`. Of several such records the last
    one counts.

    A failure is a result like others, unless failures are to be tried again: then a file is scanned again, by all
    detectors, if one of its records is of no success, see `SUCCEEDED`. What was over a limit is always tried again:
    limits may have been raised, and to find that out anew costs little. An input without a content id is always
    scanned, and so is one of whose record nobody knows what it is about: the file could not be reached, or it changed
    while it was scanned.

    Args:
        contents: content ids of the inputs, in order.
        detectors: of the scan, in order.
        entries: what the journal holds, in the order in which it was written.
        retry_failed: whether files that could not be scanned are to be scanned again.
    """
    numbers = {detector.id: number for number, detector in enumerate(detectors)}
    wanted = set(contents) - {None}
    known: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        number = numbers.get(entry.detector)
        if number is None or entry.content is None or entry.content not in wanted:
            continue
        if detectors[number].accepts(entry.computation):
            known.setdefault(entry.content, {})[number] = entry
    done: dict[int, tuple[Place, ...]] = {}
    first: dict[str, int] = {}
    copies: dict[int, list[int]] = {}
    to_scan: list[int] = []
    for index, content in enumerate(contents):
        found = known.get(content, {}) if content is not None else {}
        if len(found) == len(detectors) and not _again(found, retry_failed=retry_failed):
            done[index] = tuple(found[number].place for number in range(len(detectors)))
        elif content is not None and content in first:
            copies.setdefault(first[content], []).append(index)
        else:
            to_scan.append(index)
            if content is not None:
                first[content] = index
    return ResumePlan(done, tuple(to_scan), {index: tuple(others) for index, others in copies.items()})


def _again(found: Mapping[int, Entry], *, retry_failed: bool) -> bool:
    statuses = {entry.status for entry in found.values()}
    return "over_limit" in statuses or (retry_failed and not statuses <= SUCCEEDED)


@dataclass(slots=True)
class OtherRows:
    """Where the records of rows are that a command is not about; 16 bytes each, as there may be very many.

    Attributes:
        offsets: of their lines, in the order of the rows.
        heads: bytes of each before the track details.
    """

    offsets: array[int] = field(default_factory=lambda: array("q"))
    heads: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.offsets, self.heads, strict=True)


def rows_of(
    entries: Sequence[Entry], inputs: Sequence[str], models: Sequence[str]
) -> tuple[dict[int, Entry], OtherRows]:
    """Tell the rows of a command from all others.

    Args:
        entries: what the journal holds, in the order in which it was written.
        inputs: paths of the command's inputs, in order.
        models: names of its detectors, in order.

    Returns:
        The newest record of each row of the command that has one, by the row's number: the rows of an input follow each
        other in the order of the detectors. And the newest records of all other rows, in the order in which the journal
        first mentions them.
    """
    newest: dict[RowKey, Entry] = {}
    for entry in entries:
        newest[entry.row] = entry  # a key stays where it was first put
    number_of = {
        RowKey.of(path, model): row_number(index, number, len(models))
        for index, path in enumerate(inputs)
        for number, model in enumerate(models)
    }
    own, others = dict[int, Entry](), OtherRows()
    for key, entry in newest.items():
        row = number_of.get(key)
        if row is not None:
            own[row] = entry
        else:
            others.offsets.append(entry.place.offset)
            others.heads.append(entry.place.head)
    return own, others
