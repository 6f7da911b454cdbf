"""results.csv and results.jsonl: finished files are there at once, and a scan that ended goes on where it was.

The JSONL is the journal of the scan; see `journal.py` for when its lines are on the disk. The CSV is made from it,
whole or not at all: during the scan now and then, with the inputs that are finished so far, and at its end.
Once every input has its results, the journal is written anew too, with one line for each row, in the order of the rows.
Both files of a scan that ended early and was continued are, byte for byte, those of an undisturbed one, apart from
`elapsed_seconds` (and the `check` over it), which is measured and not computed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from deepscan.errors import OutputError
from deepscan.runtime.journal.journal import Journal
from deepscan.runtime.journal.journal_content import read_journal
from deepscan.runtime.journal.journal_lines import Place, decoded, encoded, line_of
from deepscan.runtime.journal.ordered_records import OrderedRecords
from deepscan.runtime.journal.output_lock import OutputLock
from deepscan.runtime.journal.output_paths import checked_jsonl_path
from deepscan.runtime.journal.replacing import remove_partials, replace_files
from deepscan.runtime.journal.result_records import BOM, COLUMNS, CSV_HEADER, csv_line, record_of, result_of
from deepscan.runtime.journal.results import VideoResult
from deepscan.runtime.journal.resume import DetectorKey, ResumePlan, plan_resume

__all__ = ["COLUMNS", "CSV_HEADER", "OrderedRecords", "ResultFiles", "csv_line", "plan_without_writing", "record_of"]

# Between two CSVs during a scan: at least this, and so long that writing them takes at most this share of the time.
RENDER_SECONDS: Final = 30.0
RENDER_SHARE: Final = 0.02


class ResultFiles:
    """The results of one scan: those of earlier runs with the same output, and those that come.

    Args:
        csv_path: of the CSV; the journal gets the same name with another ending.
        inputs: paths of the inputs, in order; none of them is written to.
        contents: their content ids; None where there is none.
        detectors: of the scan, in order.
        fresh: whether to forget what earlier runs have found; their journal is kept under another name.
        retry_failed: whether to scan again what could not be scanned.
        bom: whether the CSV begins with a byte order mark, which tells Excel that it is UTF-8.

    Attributes:
        plan: what is done and what is to be scanned.
        notes: sentences for people about an earlier journal that was damaged or kept aside.

    Raises:
        UsageError: the path cannot be that of a CSV, is an input, or another scan is writing to it.
        OutputError: the folder is missing or cannot be written to, or the journal cannot be read.
    """

    def __init__(
        self,
        csv_path: Path,
        *,
        inputs: Sequence[str],
        contents: Sequence[str | None],
        detectors: Sequence[DetectorKey],
        fresh: bool = False,
        retry_failed: bool = False,
        bom: bool = False,
    ) -> None:
        self._bom = bom
        self.csv_path, self.jsonl_path = csv_path, checked_jsonl_path(csv_path, inputs)
        self._inputs, self._contents, self._detectors = inputs, contents, len(detectors)
        with ExitStack() as stack, self._writing():
            stack.enter_context(OutputLock([self.csv_path, self.jsonl_path]))
            for path in (self.csv_path, self.jsonl_path):
                remove_partials(path)
            self._journal = Journal(self.jsonl_path, fresh=fresh)
            stack.callback(self._journal.close)
            self.plan = plan_resume(contents, detectors, self._journal.entries, retry_failed=retry_failed)
            self._held = stack.pop_all()
        self.notes = _notes(self._journal)
        self._journal.entries = ()  # only planning needs them, and there may be many
        self._places = {
            self._row(index, number): place
            for index, places in self.plan.done.items()
            for number, place in enumerate(places)
        }
        self._waiting: dict[int, dict[int, VideoResult]] = {}
        self._next_rendering = time.monotonic() + RENDER_SECONDS

    @property
    def done(self) -> frozenset[int]:
        """Indices of the inputs that must not be scanned: done before, or the same as another one."""
        copies = (index for others in self.plan.copies.values() for index in others)
        return frozenset([*self.plan.done, *copies])

    def results_done(self) -> Iterator[VideoResult]:
        """Yield the results of earlier runs in the order of the inputs, with today's paths, without track details.

        Raises:
            OutputError: the journal cannot be read.
        """
        for index, places in self.plan.done.items():
            for number, place in enumerate(places):
                with self._writing():
                    head = self._journal.head(place)
                yield result_of(head, index=index, row=self._row(index, number), path=self._inputs[index])

    def add(self, result: VideoResult) -> list[VideoResult]:
        """Take a result; they may come in any order.

        When the last detector's result of an input is there, all of them are written to the journal together, and those
        of the inputs that hold the same. Now and then the CSV is written, too.

        Returns:
            The result, and with the last one of an input the results of those that hold the same.

        Raises:
            OutputError: it cannot be written; what was written before is kept.
        """
        finished = self._waiting.setdefault(result.index, {})
        finished[result.row] = result
        if len(finished) < self._detectors:
            return [result]
        results = [finished[row] for row in sorted(self._waiting.pop(result.index))]
        copies = [self._copies(results, index) for index in self.plan.copies.get(result.index, ())]
        with self._writing():
            for written in (results, *copies):
                lines = [line_of(one, self._contents[one.index]) for one in written]
                self._places.update(zip((one.row for one in written), self._journal.append(lines), strict=True))
            if time.monotonic() >= self._next_rendering:
                self._render()
        return [result, *(copy for results_of_one in copies for copy in results_of_one)]

    def commit(self) -> Path | None:
        """Write the CSV of what there is and flush the journal; if every input is there, write the journal anew.

        Returns:
            The path of the CSV, or None if there is no result at all: then an earlier CSV stays.

        Raises:
            OutputError: it cannot be written; the journal stays as it was.
        """
        if not self._places and (self._inputs or self.csv_path.exists()):
            return None
        with self._writing():
            if len(self._places) < len(self._inputs) * self._detectors:
                self._journal.sync()
                self._render()
            else:
                replace_files({self._journal.path: self._lines(), self.csv_path: self._csv()})
        return self.csv_path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            with self._writing():
                self._held.close()
        except OutputError:
            if error is None:  # else what went wrong first is what people should read
                raise

    def _row(self, index: int, number: int) -> int:
        return index * self._detectors + number

    def _copies(self, results: Sequence[VideoResult], index: int) -> list[VideoResult]:
        return [
            replace(result, index=index, row=self._row(index, number), path=self._inputs[index])
            for number, result in enumerate(results)
        ]

    def _render(self) -> None:
        begin = time.monotonic()
        replace_files({self.csv_path: self._csv()})
        now = time.monotonic()
        self._next_rendering = now + max(RENDER_SECONDS, (now - begin) / RENDER_SHARE)

    def _csv(self) -> Iterator[bytes]:
        yield (BOM if self._bom else "").encode() + CSV_HEADER.encode("ascii")
        for _, _, record in self._records():
            # The bytes of a name that is not valid UTF-8 are written as they are.
            yield csv_line(record).encode("utf-8", "surrogateescape")

    def _lines(self) -> Iterator[bytes]:
        for place, moved, record in self._records():
            line = self._journal.line(place)
            yield encoded(decoded(line) | {"path": record["path"]}) if moved else line

    def _records(self) -> Iterator[tuple[Place, bool, dict[str, Any]]]:
        """Yield where each row's record is, whether its path is another one now, and its head, in order."""
        for row in sorted(self._places):
            place, path = self._places[row], self._inputs[row // self._detectors]
            head = self._journal.head(place)
            yield place, head["path"] != path, head | {"path": path}

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.csv_path} or its .jsonl cannot be written ({error.strerror}): once it can be, give the same "
                "command again, which keeps what is finished, or choose another place with --out."
            ) from error


def plan_without_writing(
    csv_path: Path,
    *,
    inputs: Sequence[str],
    contents: Sequence[str | None],
    detectors: Sequence[DetectorKey],
    fresh: bool = False,
    retry_failed: bool = False,
) -> ResumePlan:
    """Return what a scan with this output would do, without touching anything; see `ResultFiles`.

    Raises:
        UsageError: the path cannot be that of a CSV, or is an input.
        OutputError: the journal cannot be read.
    """
    jsonl_path = checked_jsonl_path(csv_path, inputs)
    try:
        entries = [] if fresh else read_journal(jsonl_path).entries
    except OSError as error:
        raise OutputError(f"{jsonl_path} cannot be read ({error.strerror}): choose another --out.") from error
    return plan_resume(contents, detectors, entries, retry_failed=retry_failed)


def _notes(journal: Journal) -> list[str]:
    notes = []
    if journal.damaged:
        notes.append(
            f"{journal.path} had damaged lines ({journal.damaged}): the files they were about are scanned again."
        )
    if journal.set_aside is not None:
        notes.append(f"The earlier {journal.path} is kept as {journal.set_aside.name} and not continued.")
    return notes
