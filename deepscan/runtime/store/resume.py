"""What is left to be scanned, from what the inputs hold and what earlier scans have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from deepscan.results import SUCCEEDED
from deepscan.runtime.store.journal_lines import Entry, Place


class DetectorKey(msgspec.Struct, frozen=True):
    """What a result depends on, besides the file: the fields of the same names in every result of a detector.

    Attributes:
        model, weights_sha256, settings_sha256: one of each.
        computations: backend and precision of the results that count; None where any do.
    """

    model: str
    weights_sha256: str
    settings_sha256: str
    computations: frozenset[tuple[str, str]] | None = None


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
    record must have been computed by what this scan may take as well: with a named backend or precision by these alone,
    on the same kind of device; with `auto` by any that `auto` may take here, as they were measured to agree. Of several
    such records the last one counts.

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
    numbers = {_key(detector): number for number, detector in enumerate(detectors)}
    wanted = set(contents) - {None}
    known: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        number = numbers.get(_key(entry))
        if number is None or entry.content is None or entry.content not in wanted:
            continue
        accepted = detectors[number].computations
        if accepted is None or entry.computation in accepted:
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


def _key(of: DetectorKey | Entry) -> tuple[str, str, str]:
    return of.model, of.weights_sha256, of.settings_sha256


def _again(found: Mapping[int, Entry], *, retry_failed: bool) -> bool:
    statuses = {entry.status for entry in found.values()}
    return "over_limit" in statuses or (retry_failed and not statuses <= SUCCEEDED)
