"""What a scan shows on the screen: a progress bar, each result on request, and a closing table. All on stderr."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from deepscan import Scan, VideoResult
from deepscan.cli.result_table import (
    LABEL,
    SCORE,
    UNTRAINED,
    Column,
    ResultTable,
    Row,
    common_folder,
    model_cell,
    print_lines,
    result_row,
)
from deepscan.cli.screen import legend, statuses_in_words, stretch
from deepscan.wording import counted, plural, printable


def per_second(rate: float) -> str:
    """Write a rate of frames: whole above 10, with two digits below."""
    number = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{number} {plural(float(number), 'frame')}/s"


ROWS_SHOWN = 20
FAILURES_SHOWN = 5
REFRESH_SECONDS = 0.25
MODEL = Column("model", 7, right=False)
PEAK = Column("peak", 6)
FACES = Column("faces", 5)
FRAMES = Column("frames", 4)
STAGE_COLUMNS = (
    Column("threads", 4),
    Column("items", 3),
    Column("busy", 9),
    Column("waiting\nfor\ninput", 7),
    Column("blocked\non\noutput", 6),
    Column("processor", 2),
    Column("busy\nshare", 8),
)


class ScanDisplay:
    """Follows one scan; use it as a context around the loop over the results.

    Attributes:
        failed: number of results with neither a score nor the certainty that there is no face.
        known: number of results from earlier runs.
        labels: number of results with each label.
    """

    def __init__(self, scan: Scan, *, quiet: bool, verbose: bool) -> None:
        self.failed = 0
        self.known = 0
        self._scan = scan
        self._verbose = verbose
        self._untrained = [model for model in scan.models if UNTRAINED in model]
        self._names_models = len(scan.models) > 1 or bool(self._untrained)
        self._console = Console(stderr=True, quiet=quiet)
        self._started = time.monotonic()
        self._statuses: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self._shown: list[tuple[float, int, VideoResult]] = []
        self._failures: list[VideoResult] = []
        self._left = threading.Event()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._refresher = threading.Thread(target=self._refresh, name="deepscan-display", daemon=True)

    def __enter__(self) -> Self:
        self._bar.start()
        self._refresher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._left.set()
        self._refresher.join()
        self._bar.stop()

    def show(self, result: VideoResult) -> None:
        """Count a result, and keep it if it is among those that the closing table shows."""
        self._statuses[result.status] += 1
        if result.label is not None:
            self.labels[result.label] += 1
        if not result.succeeded:
            self.failed += 1
            if len(self._failures) < FAILURES_SHOWN:
                self._failures.append(result)
        else:
            heapq.heappush(self._shown, (-1.0 if result.score is None else result.score, -result.row, result))
            if len(self._shown) > ROWS_SHOWN:
                heapq.heappop(self._shown)
        if self._verbose:
            said = result.reason if result.score is None else f"{result.score:.4f} {result.label}"
            model = f" {result.model}:" if self._names_models else ""
            self._say(Text(f"{printable(result.path)}:{model} {result.status} {printable(said)}".rstrip()))

    def close(self, *, stats: bool, interrupted: bool, written: Path | None) -> None:
        """Print the closing table, the failures and the totals."""
        if interrupted:
            finished, all_inputs = self._scan.finished, len(self._scan.plan.inputs)
            goes_on = ": the same command goes on from there" if written is not None else ""
            said = f"Interrupted: {finished} of {counted(all_inputs, 'input')} finished{goes_on}."
            self._say(Text(said, style="bold yellow"))
        if self._shown:
            self._show_table()
        for result in sorted(self._failures, key=lambda failure: (failure.status, failure.row)):
            self._say(Text(f"{result.status}: {printable(result.path)}: {result.reason}", style="yellow"))
        if self.failed > len(self._failures):
            self._say(Text(f"... and {self.failed - len(self._failures)} more that could not be scanned."))
        if self._failures and written is not None:
            status, journal = self._failures[0].status, written.with_suffix(".jsonl")
            self._say(Text(f"More about them: deepscan show {quote(printable(str(journal)))} --status {status}"))
        if self._statuses or not interrupted:
            self._say(Text(self._totals()))
        if self._untrained:
            names = ", ".join(self._untrained)
            self._say(Text(f"{names}: random weights, for measuring speed; the scores mean nothing.", style="bold red"))
        if stats:
            self._show_stages()
            self._say_decoders()
        if written is not None:
            files = [str(written), written.with_suffix(".jsonl").name, *filter(None, [self._scan.per_frame])]
            self._say(Text(f"Written: {printable(', '.join(files[:-1]))} and {printable(files[-1])}"))

    def _say(self, line: Text) -> None:
        """Print a line, folded on a terminal only: elsewhere programs read it."""
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _refresh(self) -> None:
        while not self._left.wait(REFRESH_SECONDS):
            progress, files = self._scan.progress, counted(len(self._scan.plan.inputs), "file")
            rate = per_second(progress.frames / max(time.monotonic() - self._started, 1e-3))
            said = f"{self._scan.finished}/{files}  {rate}  {counted(progress.faces, 'face')}"
            self._bar.update(self._task, completed=self._scan.share_done(), description=said)

    def _show_table(self) -> None:
        """Print the results with the highest score first, and what their labels mean."""
        succeeded = sum(self._statuses.values()) - self.failed
        many = succeeded > ROWS_SHOWN
        rows = [result for _, _, result in sorted(self._shown, key=lambda item: item[:2], reverse=True)]
        rows = [row for row in rows if row.score is not None or not many]
        if not rows:
            return
        folder = common_folder([row.path for row in rows])
        if many:
            highest = "highest score" if len(rows) == 1 else f"{len(rows)} highest scores"
            self._say(Text(f"The {highest} of {succeeded} results:", style="italic"))
        elif folder:
            self._say(Text(f"In {printable(folder)}:", style="italic"))
        table = ResultTable([SCORE, LABEL, *([MODEL, PEAK] if self._names_models else [PEAK, FACES, FRAMES])])
        table.rows += [self._row(row, folder) for row in rows]
        print_lines(self._console, table)
        for line in legend(rows):
            self._say(Text(line))

    def _row(self, result: VideoResult, folder: str) -> Row:
        peak = result.peak
        when = (
            "" if peak is None or result.duration_seconds is None else stretch(peak.start_seconds, peak.end_seconds, 0)
        )
        seen = "" if peak is None else f"{peak.score:.3f} at {when}" if when else f"{peak.score:.3f}"
        if self._names_models:
            return result_row(result, folder, model_cell(result.model), (seen, ""))
        return result_row(result, folder, (seen, ""), (str(result.faces), ""), (str(result.frames), ""))

    def _totals(self) -> str:
        seconds = time.monotonic() - self._started
        frames = self._scan.progress.frames
        statuses = statuses_in_words(self._statuses, self.labels)
        passed_over = self._scan.plan.passed_over()
        skipped = f"; passed over in folders: {passed_over}" if passed_over else ""
        known = f"; {self.known} of them known from earlier runs" if self.known else ""
        rows = counted(sum(self._statuses.values()), "result" if len(self._scan.models) > 1 else "input")
        looked_at = f"{counted(frames, 'frame')} in {seconds:.1f} s" if frames else ""
        rate = f", {per_second(frames / max(seconds, 1e-3))} on {self._scan.device}." if frames else ""
        return f"{rows}{': ' if statuses else ''}{statuses}{known}{skipped}. {looked_at}{rate}".rstrip()

    def _show_stages(self) -> None:
        """Print where the time went."""
        self._say(Text("Where the time went, in seconds summed over a stage's threads:", style="italic"))
        table = ResultTable(STAGE_COLUMNS, name_title="stage")
        for stage in self._scan.stage_times():
            seconds = (stage.busy_seconds, stage.waiting_seconds, stage.blocked_seconds, stage.cpu_seconds)
            numbers = [str(stage.threads), str(stage.items), *(f"{value:.2f}" for value in seconds)]
            table.rows.append(Row(stage.name, [(text, "") for text in [*numbers, f"{stage.busy_share:.0%}"]]))
        print_lines(self._console, table)

    def _say_decoders(self) -> None:
        """Print which videos the GPU decoded, where there is one that does."""
        by_nvdec, by_cpu = self._scan.decoded_by()
        if not by_nvdec and not by_cpu:
            return
        self._say(Text(f"Decoded by NVDEC: {by_nvdec}; by the CPU: {sum(by_cpu.values())}."))
        for reason, count in sorted(by_cpu.items(), key=lambda item: -item[1]):
            self._say(Text(f"  {count} by the CPU: {printable(reason)}"))
