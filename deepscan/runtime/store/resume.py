"""Resuming from the records of earlier scans: inputs that are left to scan, and records that the rows show."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deepscan.results import SUCCEEDED, row_number
from deepscan.runtime.store.identity import DetectorKey, RowKey
from deepscan.runtime.store.journal import Entry, Place


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """Plan of a resumed scan; each input is in exactly one of the three.

    Attributes:
        done: places of the known results of an input, one per detector in order, by the input's index.
        to_scan: indices of the inputs to scan, in order.
        copies: indices of later inputs with the same content as an input to scan, by the index of that one.
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
    counts: Callable[[Entry], bool] | None = None,
) -> ResumePlan:
    """Plan a scan.

    An input is done if every detector has a record of its content, under any file name, that was computed as this scan
    computes; see `accepted_computations`. The last such record counts.

    A failure is a result like any other, unless `retry_failed` is set: then all detectors scan a file again if one of
    its records is not a success, see `SUCCEEDED`. Inputs that were over a limit are always tried again, because limits
    may have been raised and finding out costs little. Inputs without a content id are always scanned, and records
    without one never count: the file could not be reached, or it changed while it was scanned.

    Args:
        contents: content ids of the inputs, in order; None for an input that has none.
        detectors: detectors of the scan, in order.
        entries: entries of the journal, in the order in which they were written.
        retry_failed: whether to scan files again that could not be scanned.
        counts: tells whether all that goes with an entry is still there; otherwise it does not count.
    """
    numbers = {detector.id: number for number, detector in enumerate(detectors)}
    wanted = set(contents) - {None}
    known: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        number = numbers.get(entry.detector)
        if number is None or entry.content is None or entry.content not in wanted:
            continue
        if entry.computation in detectors[number].computations and (counts is None or counts(entry)):
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
    """Offsets and heads, see `Place`, of rows that do not belong to a command; 16 bytes each, as there may be many."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    heads: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.offsets, self.heads, strict=True)


def rows_of(
    entries: Sequence[Entry], inputs: Sequence[str], models: Sequence[str]
) -> tuple[dict[int, Entry], OtherRows]:
    """Separate the rows of a command, with these inputs and detectors, from all others in a journal.

    Returns:
        The newest record of each row of the command, by `row_number`; and the newest records of all other rows, in the
        order in which the journal first mentions them.
    """
    newest: dict[RowKey, Entry] = {}
    for entry in entries:
        newest[entry.row] = entry  # a dictionary keeps the order of first insertion
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
