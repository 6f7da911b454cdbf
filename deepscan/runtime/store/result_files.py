"""Results of a scan on disk: an output such as results.csv, and its journal results.jsonl.

All scans with the same output share the journal. The output is rendered from the journal now and then during the scan
and at its end, each time as a whole. It shows the newest record of every row in the journal (`resume.rows_of`): first
the rows of earlier inputs and detectors, then those of this scan, in the order of its inputs. If a scan ended early and
was resumed, its CSV is byte for byte that of an undisturbed scan, except for `elapsed_seconds`, which is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec

from deepscan.errors import DeepscanError, OutputError
from deepscan.results import VideoResult, row_number
from deepscan.runtime.store.frame_files import FrameStore, frame_rows_of, has_frames
from deepscan.runtime.store.identity import DetectorId, DetectorKey
from deepscan.runtime.store.journal import Entry, Journal, Place, decoded, encoded, line_of, read_journal
from deepscan.runtime.store.outputs import (
    checked_jsonl_path,
    keep_orphan,
    writing_results,
)
from deepscan.runtime.store.resume import OtherRows, ResumePlan, plan_resume, rows_of
from deepscan.runtime.store.writers import writer_for
from deepscan.runtime.system.files import atomic_write, check_replaceable, remove_partials

# Least time between two renderings during a scan, and the largest share of the time that rendering may take.
RENDER_SECONDS: Final = 30.0
RENDER_SHARE: Final = 0.02
LINES_AT_ONCE: Final = 256
MEASURED: Final = {"elapsed_seconds": 0.0}  # differs from run to run


class ResultFiles:
    """Results of one scan: those of earlier runs with the same output, and new ones.

    Args:
        out: path of the output. Its suffix selects the format; the journal has the same name with another suffix. A
            missing folder is created.
        inputs: paths of the inputs, in order; none of them may be overwritten.
        contents, detectors, retry_failed: see `plan_resume`.
        fused: makes a last row for each input of those of the detectors, known ones included.
        fresh: whether to ignore the results of earlier runs; their journal is kept under another name.
        bom: whether a CSV begins with a byte order mark, which tells Excel that it is UTF-8.
        prune: whether the output has only the rows of this scan.
        per_frame: path of a per-frame file for the rows of the output; files whose frames are missing are
            scanned again.

    Attributes:
        plan: inputs that are done, and inputs to scan.
        notes: sentences about a damaged or set-aside journal, and about rows that were left out.
        frames: parts of the per-frame file; None if there is none.

    Raises:
        UsageError: the suffix of the path belongs to no format, the path is an input or a file that deepscan has not
            written, or another scan is writing to it.
        OutputError: the folder cannot be written to, or the journal cannot be read.
    """

    def __init__(
        self,
        out: Path,
        *,
        inputs: Sequence[str],
        contents: Sequence[str | None],
        detectors: Sequence[DetectorKey],
        fused: Fuses | None = None,
        fresh: bool = False,
        retry_failed: bool = False,
        bom: bool = False,
        prune: bool = False,
        per_frame: str | None = None,
    ) -> None:
        self.out, self._writer = out, writer_for(out, bom=bom)
        models = _models(detectors, fused)
        self._inputs, self._contents, self._detectors = inputs, contents, len(models)
        with ExitStack() as stack, writing_results(out):
            self.jsonl_path = checked_jsonl_path(out, inputs, fresh=fresh)
            with suppress(FileExistsError):  # no folder: writing there says so
                out.parent.mkdir(parents=True, exist_ok=True)
            check_replaceable(out)
            self._journal = Journal(self.jsonl_path, fresh=fresh)
            stack.callback(self._journal.close)
            self.frames: FrameStore | None = None
            if per_frame is not None:
                self.frames = stack.enter_context(FrameStore(per_frame, temporary=False, fresh=fresh))
            for path in (self.out, self.jsonl_path):
                remove_partials(path)
            orphan = None if self._journal.entries or fresh else keep_orphan(out)
            entries = self._journal.entries
            counts = partial(has_frames, per_frame) if per_frame is not None else None
            self.plan = plan_resume(contents, detectors, entries, retry_failed=retry_failed, counts=counts)
            newest, others = rows_of(entries, inputs, models)
            self._journal.entries = ()  # only planning needs them, and there may be many
            self._others = OtherRows() if prune else others
            self._places = {row: entry.place for row, entry in newest.items()}
            self._append_again(newest)
            if fused is not None:
                self._append_fused(newest, fused)
            self._held = stack.pop_all()
        self.notes = _notes(self._journal)
        if orphan is not None:
            self.notes.append(f"The earlier {out}, whose journal is gone, is kept as {orphan.name}.")
        if prune:
            self.notes += pruning_note(len(others), out, self.jsonl_path)
        self._copies = dict(self.plan.copies)
        self._taken_up: list[int] = []
        self._next_rendering = time.monotonic() + RENDER_SECONDS

    @property
    def done(self) -> frozenset[int]:
        """Indices of the inputs not to scan: those done before, and copies of others."""
        copies = (index for others in self.plan.copies.values() for index in others)
        return frozenset([*self.plan.done, *copies])

    def results_done(self) -> Iterator[VideoResult]:
        """Yield the results of earlier runs in the order of the inputs, with current paths, without track details."""
        for index in self.plan.done:
            for number in range(self._detectors):
                row = self._row(index, number)
                with writing_results(self.out):
                    head = self._journal.head(*self._places[row][:2])
                yield VideoResult.from_dict(head | {"path": self._inputs[index]}, index=index, row=row)

    def add(self, *results: VideoResult) -> list[VideoResult]:
        """Write all results of one input, one per detector, to the journal; inputs may come in any order.

        The results of its copies are written, too, if the bytes that were read are those of the plan; otherwise see
        `take_up`. Now and then the output is rendered.

        Returns:
            The results, followed by those of the copies.

        Raises:
            OutputError: the results cannot be written; earlier ones are kept.
        """
        copies = [self._copied(results, index) for index in self._same_as(results[0])]
        with writing_results(self.out):
            for written in (results, *copies):
                new = [one for one in written if not self._is_known(one)]
                self._append(new)
            if time.monotonic() >= self._next_rendering:
                self._render()
        return [*results, *(copy for results_of_one in copies for copy in results_of_one)]

    def take_up(self) -> list[int]:
        """Return, once, the inputs in `done` that must be scanned after all.

        They were copies of an input that could not be reached or had changed when it was scanned.
        """
        taken_up, self._taken_up = self._taken_up, []
        return taken_up

    def commit(self) -> Path | None:
        """Flush the journal and render the output.

        Returns:
            The path of the output; None if there are inputs but no results, in which case an earlier output stays.

        """
        if self._inputs and not self._places and not self._others:
            return None
        with writing_results(self.out):
            self._journal.sync()
            self._render()
        if self.frames is not None:
            with writing_results(self.out):  # reading the journal
                self.frames.write(map(frame_rows_of, self._records()))
        return self.out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            with writing_results(self.out):
                self._held.close()
        except OutputError:
            if error is None:  # otherwise the first error is the one to report
                raise

    def _row(self, index: int, number: int) -> int:
        return row_number(index, number, self._detectors)

    def _same_as(self, result: VideoResult) -> tuple[int, ...]:
        """Return the indices of the inputs to which the results of a finished one are copied."""
        others = self._copies.pop(result.index, ())
        if not others or (result.content is not None and result.content == self._contents[result.index]):
            return others
        first, *rest = others
        self._taken_up.append(first)
        if rest:
            self._copies[first] = tuple(rest)
        return ()

    def _is_known(self, result: VideoResult) -> bool:
        """Tell whether the row shows the same failure already; failures that recur in every run would fill the disk."""
        place = self._places.get(result.row)
        if result.succeeded or place is None:
            return False
        before, now = decoded(self._journal.line(place)), decoded(line_of(result))
        return before | MEASURED == now | MEASURED

    def _copied(self, results: Sequence[VideoResult], index: int) -> list[VideoResult]:
        return [
            msgspec.structs.replace(result, index=index, row=self._row(index, number), path=self._inputs[index])
            for number, result in enumerate(results)
        ]

    def _append_again(self, newest: dict[int, Entry]) -> None:
        """Append known results again if their row shows another record or path."""
        stale: list[tuple[int, Place, str]] = []
        for index, places in self.plan.done.items():
            path = self._inputs[index]
            for number, place in enumerate(places):
                row = self._row(index, number)
                shown = newest.get(row)
                if shown is None or shown.place != place or shown.path != path:
                    stale.append((row, place, path))
        for start in range(0, len(stale), LINES_AT_ONCE):
            chunk = stale[start : start + LINES_AT_ONCE]
            lines = [encoded(decoded(self._journal.line(place)) | {"path": path}) for _, place, path in chunk]
            self._places.update(zip((row for row, *_ in chunk), self._journal.append(lines), strict=True))

    def _append_fused(self, newest: dict[int, Entry], fused: Fuses) -> None:
        """Append the fused results of inputs that are done, unless their rows show them already."""
        last = self._detectors - 1
        wanted = DetectorId(fused.model, fused.weights_sha256, fused.settings_sha256)
        stale: list[VideoResult] = []
        for index in self.plan.done:
            places = [self._places[self._row(index, number)] for number in range(last)]
            shown = newest.get(self._row(index, last))
            if (
                shown is not None
                and (shown.detector, shown.path, shown.content) == (wanted, self._inputs[index], self._contents[index])
                and shown.place.offset > max(place.offset for place in places)
            ):
                continue
            rows = [VideoResult.from_dict(self._journal.head(*place[:2]), index=index) for place in places]
            stale.append(fused.add(rows)[-1])
            if len(stale) == LINES_AT_ONCE:
                self._append(stale)
                stale = []
        self._append(stale)

    def _append(self, results: Sequence[VideoResult]) -> None:
        if not results:
            return
        lines = [line_of(result) for result in results]
        self._places.update(zip((result.row for result in results), self._journal.append(lines), strict=True))

    def _render(self) -> None:
        begin = time.monotonic()
        try:
            atomic_write({self.out: self._writer.encode(self._records())})
        except (OSError, DeepscanError):
            raise
        except Exception as error:  # the code of another package
            raise OutputError(
                f"{self.out} cannot be written in its format ({type(error).__name__}: {error}): use --out FILE.csv, or "
                f"update the package that adds the format. The results are kept in {self.jsonl_path}."
            ) from error
        now = time.monotonic()
        self._next_rendering = now + max(RENDER_SECONDS, (now - begin) / RENDER_SHARE)

    def _records(self) -> Iterator[dict[str, Any]]:
        for offset, head in self._others:
            yield self._journal.head(offset, head)
        for row in sorted(self._places):
            yield self._journal.head(*self._places[row][:2])


class Fuses(Protocol):
    """Makes a row of the rows of all detectors; see `FusedDetector`."""

    @property
    def model(self) -> str:
        """Name of the row."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights of its detectors."""

    @property
    def settings_sha256(self) -> str:
        """Hash of everything else that it depends on."""

    def add(self, results: Sequence[VideoResult]) -> Sequence[VideoResult]:
        """Return the results of one input, followed by the fused one."""


def _models(detectors: Sequence[DetectorKey], fused: Fuses | None) -> list[str]:
    return [*(key.model for key in detectors), *([fused.model] if fused is not None else [])]


def plan_without_writing(
    out: Path,
    *,
    inputs: Sequence[str],
    contents: Sequence[str | None],
    detectors: Sequence[DetectorKey],
    fused: Fuses | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    per_frame: str | None = None,
) -> tuple[ResumePlan, int]:
    """Plan a scan with this output, without writing anything; see `ResultFiles`.

    Returns:
        The plan, and the number of rows of other inputs and detectors in the journal.
    """
    with writing_results(out):
        jsonl_path = checked_jsonl_path(out, inputs, fresh=fresh)
        entries = [] if fresh else read_journal(jsonl_path).entries
    _, others = rows_of(entries, inputs, _models(detectors, fused))
    counts = partial(has_frames, per_frame) if per_frame is not None else None
    return plan_resume(contents, detectors, entries, retry_failed=retry_failed, counts=counts), len(others)


def pruning_note(others: int, out: Path, jsonl_path: Path) -> list[str]:
    """Return a sentence about the rows of other inputs and detectors that `--prune` leaves out, if there are any."""
    if not others:
        return []
    rows, they = ("1 row", "it stays") if others == 1 else (f"{others:,} rows", "they stay")
    note = (
        f"--prune leaves {rows} of other inputs or detectors out of {out}; {they} in {jsonl_path}, and a scan "
        "without --prune brings them back."
    )
    return [note]


def _notes(journal: Journal) -> list[str]:
    notes = []
    if journal.damaged:
        notes.append(
            f"{journal.path} has damaged lines ({journal.damaged}), which are passed over: the files they were about "
            "are scanned again."
        )
    if journal.set_aside is not None:
        notes.append(f"The earlier {journal.path} is kept as {journal.set_aside.name} and not continued.")
    return notes
