"""Labels for results: which row of the truth belongs to which row of a scan, and what remains without the other."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Literal

import msgspec

from deepscan.errors import InputError, UsageError
from deepscan.evaluation.layouts import truth_from_folder, truth_from_json
from deepscan.evaluation.truth import Truth, TruthRow, truth_from_csv
from deepscan.results import VideoResult
from deepscan.runtime.media.content import content_id
from deepscan.runtime.media.inputs import normalized_path
from deepscan.runtime.store.stored_results import jsonl_path, stored_results
from deepscan.wording import counted

NAMES_SHOWN: Final = 3


class LabeledResult(msgspec.Struct, frozen=True, kw_only=True):
    """One result with what is known of its video.

    Attributes:
        result: the result of one detector.
        truth: what is known of the video.
        matched_by: how the two were found to belong together.
        cluster: what is drawn together when intervals are computed: the group; without one the content, or the path.
    """

    result: VideoResult
    truth: TruthRow
    matched_by: Literal["path", "suffix", "content"]
    cluster: str


class LabelMatch(msgspec.Struct, frozen=True, kw_only=True):
    """Results with labels, and what has none.

    Attributes:
        source: where the labels come from, and the name of their layout.
        labeled: results with labels, in the order of the results.
        unlabeled: paths of results that no row of the truth is about.
        ambiguous: paths of results that several rows may be about, or that share a row with another.
        without_result: paths of rows of the truth that no result is about.
        leaks: pairs of paths with the same content or group in two splits.
        notes: sentences about all of this, and about the truth.
    """

    source: str
    labeled: tuple[LabeledResult, ...]
    unlabeled: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    without_result: tuple[str, ...] = ()
    leaks: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def read_truth(path: str | os.PathLike[str]) -> Truth:
    """Return the labels in a CSV file, a folder with a known layout, or a JSON file of DFDC or DeepfakeBench.

    Raises:
        UsageError: the labels cannot be read, or contradict each other.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return truth_from_folder(path)
    return truth_from_json(path) if path.lower().endswith(".json") else truth_from_csv(path)


def labeled_results(
    results: str | os.PathLike[str] | Iterable[VideoResult],
    labels: str | os.PathLike[str] | Truth,
    *,
    split: str | None = None,
) -> LabelMatch:
    """Read results and labels, and find those that belong together; see `evaluate` for what may be given.

    Raises:
        UsageError: results or labels cannot be read, contradict each other, or have nothing in common.
    """
    notes: list[str] = []
    if isinstance(results, (str, os.PathLike)):
        if isinstance(labels, (str, os.PathLike)):
            refuse_same_file(results, labels)
        stored = stored_results(jsonl_path(os.fspath(results)))
        rows: Sequence[VideoResult] = [row for row, _ in stored.rows]
        if stored.damaged:
            notes.append(f"{counted(stored.damaged, 'damaged line')} of {stored.path} left out.")
    else:
        rows = list({(row.model, row.path): row for row in results}.values())
    if not rows:
        raise UsageError("There are no results to evaluate: scan at least one video.")
    match = match_labels(rows, labels if isinstance(labels, Truth) else read_truth(labels), split=split)
    return msgspec.structs.replace(match, notes=(*notes, *match.notes))


def refuse_same_file(results: str | os.PathLike[str], labels: str | os.PathLike[str]) -> None:
    """Refuse labels that are the results, or the output beside them.

    Raises:
        UsageError: they are.
    """
    same = False
    with suppress(OSError, ValueError, UsageError):
        same = any(os.path.samefile(place, labels) for place in (results, jsonl_path(os.fspath(results))))
    if same:
        raise UsageError(f"{os.fspath(labels)} holds the results: give another file for the labels.")


def match_labels(results: Iterable[VideoResult], truth: Truth, *, split: str | None = None) -> LabelMatch:
    """Find the row of the truth for each result.

    A row belongs to a result if they name the same path; else, if the path of one is the end of the other's and no
    other row or result comes into question; else, if the row's file has the content of the result.

    Args:
        results: rows of a scan, of one or several detectors.
        truth: labels from `read_truth`.
        split: only videos of this split are returned; all of them are checked.

    Raises:
        UsageError: no result has a label, the same content has two labels, or there is no such split.
    """
    results = list(results)
    splits = sorted({row.split for row in truth.rows if row.split is not None})
    if split is not None and split not in splits:
        raise UsageError(f"{truth.source} has no split {split!r}: use one of {', '.join(splits) or 'none'}.")
    contents = {result.path: result.content for result in results if result.content is not None}
    matcher = _Matcher(truth, list(dict.fromkeys(result.path for result in results)), contents)
    found = matcher.match()
    if not found:
        raise UsageError(
            f"No result is about a video of {truth.source}: a path must be the same as the label's, or its end, as "
            f"{truth.rows[0].path} is of folder/{truth.rows[0].path}."
        )
    _refuse_two_labels(found, contents)
    leaks = _leaks(found, contents)
    labeled = tuple(
        LabeledResult(
            result=result,
            truth=row,
            matched_by=how,
            cluster=row.group or result.content or result.path,
        )
        for result in results
        if result.path in found and (split is None or found[result.path][0].split == split)
        for row, how in [found[result.path]]
    )
    if not labeled:
        raise UsageError(
            f"No result is about a video of the split {split} of {truth.source}: use one of {', '.join(splits)}."
        )
    used = {id(row) for row, _ in found.values()}
    unlabeled = [path for path in matcher.paths if path not in found and path not in matcher.ambiguous]
    without = [row.path for row in truth.rows if id(row) not in used]
    ambiguous = list(matcher.ambiguous)
    unknown = [path for path in found if path not in contents]
    notes = [
        *truth.notes,
        *_counted_paths(unlabeled, "result", "has no label and is left out", "have no label and are left out"),
        *_counted_paths(
            ambiguous, "result", "has an ambiguous label and is left out", "have ambiguous labels and are left out"
        ),
        *_counted_paths(without, "label", "is of a video without a result", "are of videos without a result"),
        *_counted_paths(
            unknown, "result", "has no content id to find copies by", "have no content id to find copies by"
        ),
        *_counted_paths(
            [f"{one} and {other}" for one, other in leaks],
            "leak",
            "was found, with the same content or group in two splits",
            "were found, with the same content or group in two splits",
        ),
    ]
    return LabelMatch(
        source=f"{truth.source} ({truth.layout})",
        labeled=labeled,
        unlabeled=tuple(unlabeled),
        ambiguous=tuple(ambiguous),
        without_result=tuple(without),
        leaks=leaks,
        notes=tuple(notes),
    )


Found = dict[str, tuple[TruthRow, Literal["path", "suffix", "content"]]]


class _Matcher:
    """Pairs paths of results with rows of the truth."""

    def __init__(self, truth: Truth, paths: list[str], contents: dict[str, str]) -> None:
        self.paths = paths
        self.ambiguous: dict[str, None] = {}
        self._truth = truth
        self._contents = contents
        self._found: Found = {}
        self._used: set[int] = set()

    def match(self) -> Found:
        """Return the row of each path that has one, and how it was found."""
        self._by_path()
        self._by_suffix()
        self._by_content()
        return self._found

    def _open_paths(self) -> list[str]:
        return [path for path in self.paths if path not in self._found]

    def _open_rows(self) -> list[TruthRow]:
        return [row for row in self._truth.rows if id(row) not in self._used]

    def _by_path(self) -> None:
        exact: dict[str, TruthRow] = {}
        for row in self._truth.rows:
            for place in (row.path, os.path.join(self._truth.folder, row.path)):
                exact.setdefault(os.path.abspath(place), row)
        same = {normalized_path(row.path): row for row in self._truth.rows}
        for path in self.paths:
            known = same.get(normalized_path(path)) or exact.get(os.path.abspath(path))
            if known is not None:
                self._found[path] = known, "path"
                self._used.add(id(known))

    def _by_suffix(self) -> None:
        rows: dict[str, list[tuple[tuple[str, ...], TruthRow]]] = defaultdict(list)
        for row in self._open_rows():
            parts = _parts(row.path)
            rows[parts[-1]].append((parts, row))
        candidates: dict[str, list[TruthRow]] = {}
        claims: dict[int, list[str]] = defaultdict(list)
        for path in self._open_paths():
            parts = _parts(path)
            fitting = [row for other, row in rows.get(parts[-1], ()) if _is_end(parts, other)]
            if fitting:
                candidates[path] = fitting
            for row in fitting:
                claims[id(row)].append(path)
        for path, fitting in candidates.items():
            if len(fitting) == 1 and len(claims[id(fitting[0])]) == 1:
                self._found[path] = fitting[0], "suffix"
                self._used.add(id(fitting[0]))
            else:
                self.ambiguous[path] = None

    def _by_content(self) -> None:
        wanted = {content: path for path in self._open_paths() if (content := self._contents.get(path))}
        sizes = {int(content.split(":")[1]) for content in wanted}
        kinds = {content.startswith("full:") for content in wanted}
        of_content: dict[str, list[TruthRow]] = defaultdict(list)
        for row in self._truth.rows if wanted else ():
            if row.path.startswith(("fast:", "full:")):
                of_content[row.path].append(row)
                continue
            with suppress(OSError, ValueError, InputError):
                place = os.path.join(self._truth.folder, row.path)
                if os.stat(place).st_size in sizes:
                    for full in kinds:
                        of_content[content_id(place, full=full)].append(row)
        for path in self._open_paths():
            rows = of_content.get(self._contents.get(path, ""), [])
            if rows:
                self._found[path] = rows[0], "content"
                self._used |= {id(row) for row in rows}
                self.ambiguous.pop(path, None)
                if len({row.label for row in rows}) > 1:
                    raise _two_labels(rows[0].path, rows[1].path)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.replace("\\", "/").split("/") if part not in ("", ".")) or ("",)


def _is_end(one: Sequence[str], other: Sequence[str]) -> bool:
    common = min(len(one), len(other))
    return one[-common:] == other[-common:]


def _refuse_two_labels(found: Found, contents: dict[str, str]) -> None:
    known: dict[str, tuple[str, TruthRow]] = {}
    for path, (row, _) in found.items():
        if path in contents:
            first, other = known.setdefault(contents[path], (path, row))
            if other.label != row.label:
                raise _two_labels(first, path)


def _two_labels(one: str, other: str) -> UsageError:
    return UsageError(f"{one} and {other} have the same content but one is fake and one real: correct the labels.")


def _leaks(found: Found, contents: dict[str, str]) -> tuple[tuple[str, str], ...]:
    known: dict[tuple[str, str], tuple[str, TruthRow]] = {}
    leaks: dict[tuple[str, str], None] = {}
    for path, (row, _) in found.items():
        keys = [("content", contents.get(path)), ("group", row.group)]
        for kind, value in keys if row.split is not None else ():
            if value is not None:
                first, other = known.setdefault((kind, value), (path, row))
                if other.split != row.split:
                    leaks[first, path] = None
    return tuple(leaks)


def _counted_paths(paths: Sequence[str], noun: str, one: str, many: str) -> list[str]:
    if not paths:
        return []
    listed = ", ".join(paths[:NAMES_SHOWN]) + (", ..." if len(paths) > NAMES_SHOWN else "")
    return [f"{counted(len(paths), noun)} {one if len(paths) == 1 else many}: {listed}."]
