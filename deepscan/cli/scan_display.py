"""What a scan shows on the screen: a progress bar, each result on request, and a closing table. All on stderr."""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from deepscan import Scan, VideoResult
from deepscan.cli.printable import printable as printable

ROWS_SHOWN = 20
FAILURES_SHOWN = 5
NAME_WIDTH = 20
REFRESH_SECONDS = 0.25
STYLES = {"fake": "bold red", "uncertain": "yellow", "real": "green"}
UNTRAINED = "untrained"


class _Counts(ProgressColumn):
    """Files done, frames per second and faces found, read from the running scan."""

    def __init__(self, scan: Scan, started: float) -> None:
        super().__init__()
        self._scan = scan
        self._started = started

    def render(self, task: Task) -> Text:  # noqa: ARG002 - Rich's signature
        progress = self._scan.progress
        rate = progress.frames / max(time.monotonic() - self._started, 1e-3)
        files = f"{self._scan.finished}/{len(self._scan.plan.inputs)} files"
        return Text(f"{files}  {rate:.0f} frames/s  {progress.faces} faces")


class ScanDisplay:
    """Follows one scan; use it as a context around the loop over the results."""

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
        self._labels: Counter[str] = Counter()
        self._shown: list[tuple[float, int, VideoResult]] = []
        self._failures: list[VideoResult] = []
        self._left = threading.Event()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            _Counts(scan, self._started),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("scan", total=1.0)
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
            self._labels[result.label] += 1
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
            said = f"Interrupted: {finished} of {all_inputs} inputs are finished{goes_on}."
            self._say(Text(said, style="bold yellow"))
        if self._shown:
            self._console.print(self._table())
        for result in sorted(self._failures, key=lambda failure: failure.row):
            self._say(Text(f"{result.status}: {printable(result.path)}: {result.reason}", style="yellow"))
        if self.failed > len(self._failures):
            self._say(Text(f"... and {self.failed - len(self._failures)} more that could not be scanned."))
        if self._failures and written is not None:
            status, journal = self._failures[0].status, written.with_suffix(".jsonl")
            self._say(Text(f"More about them: deepscan show {printable(str(journal))} --status {status}"))
        self._say(Text(self._totals()))
        if self._untrained:
            names = ", ".join(self._untrained)
            self._say(Text(f"{names}: random weights, for measuring speed; the scores mean nothing.", style="bold red"))
        if stats:
            self._console.print(self._stage_table())
            self._say_decoders()
        if written is not None:
            files = f"{written} and {written.with_suffix('.jsonl').name}"
            self._say(Text(f"Written: {printable(files)}"))

    def _say(self, line: Text) -> None:
        """Print a line, not folded where nobody sees it: programs read it then."""
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _refresh(self) -> None:
        while not self._left.wait(REFRESH_SECONDS):
            self._bar.update(self._task, completed=self._scan.share_done())

    def _table(self) -> Table:
        many = sum(self._statuses.values()) - self.failed > ROWS_SHOWN
        ranked = [result for _, _, result in sorted(self._shown, key=lambda item: item[:2], reverse=True)]
        rows = [row for row in ranked if row.score is not None] if many else sorted(ranked, key=lambda row: row.row)
        folder = _common_folder([row.path for row in rows])
        title = f"The {len(rows)} highest scores" if many else f"In {printable(folder)}" if folder else None
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("video", overflow="fold", min_width=NAME_WIDTH)
        if self._names_models:
            table.add_column("model", overflow="fold")
        counts = [] if self._names_models else ["faces", "frames"]
        for column in ("score", "label", "peak", *counts):
            table.add_column(column, justify="right", no_wrap=True)
        noted = any(row.reason for row in rows)
        if noted:
            table.add_column("note", overflow="fold", ratio=1)
        for result in rows:
            peak = result.peak
            table.add_row(
                Text(printable(result.path[len(folder) :])),
                *([self._model(result.model)] if self._names_models else []),
                "" if result.score is None else f"{result.score:.3f}",
                Text(result.label or result.status, style=STYLES.get(result.label or "", "")),
                "" if peak is None else f"{peak.score:.3f} at {peak.start_seconds:.0f}-{peak.end_seconds:.0f} s",
                *([] if self._names_models else [str(result.faces), str(result.frames)]),
                *([Text(printable(result.reason))] if noted else []),
            )
        return table

    def _model(self, name: str) -> Text:
        return Text(printable(name), style="bold red" if name in self._untrained else "")

    def _totals(self) -> str:
        seconds = time.monotonic() - self._started
        frames = self._scan.progress.frames
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(self._statuses.items()))
        labels = ", ".join(f"{self._labels[label]} {label}" for label in STYLES)
        passed_over = self._scan.plan.passed_over()
        skipped = f"; passed over in folders: {passed_over}" if passed_over else ""
        known = f"; {self.known} of them known from earlier runs" if self.known else ""
        rows = "results" if len(self._scan.models) > 1 else "inputs"
        return (
            f"{sum(self._statuses.values())} {rows}: {statuses} ({labels}){known}{skipped}. "
            f"{frames} frames in {seconds:.1f} s, {frames / max(seconds, 1e-3):.0f} frames/s on {self._scan.device}."
        )

    def _stage_table(self) -> Table:
        title = "Where the time went, in seconds summed over a stage's threads"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        columns = (
            "stage",
            "threads",
            "items",
            "busy",
            "waiting for input",
            "blocked on output",
            "processor",
            "busy share",
        )
        for column in columns:
            table.add_column(column, justify="left" if column == "stage" else "right")
        for stage in self._scan.stage_times():
            table.add_row(
                stage.name,
                str(stage.threads),
                str(stage.items),
                f"{stage.busy_seconds:.2f}",
                f"{stage.waiting_seconds:.2f}",
                f"{stage.blocked_seconds:.2f}",
                f"{stage.cpu_seconds:.2f}",
                f"{stage.busy_share:.0%}",
            )
        return table

    def _say_decoders(self) -> None:
        """Print which videos the GPU decoded, where there is one that does."""
        by_nvdec, by_cpu = self._scan.decoded_by()
        if not by_nvdec and not by_cpu:
            return
        self._say(Text(f"Decoded by NVDEC: {by_nvdec}; by the CPU: {sum(by_cpu.values())}."))
        for reason, count in sorted(by_cpu.items(), key=lambda item: -item[1]):
            self._say(Text(f"  {count} by the CPU: {printable(reason)}"))


def _common_folder(paths: list[str]) -> str:
    """Return the folder that all paths lie in, with its slash, or nothing."""
    folders = {os.path.dirname(path) for path in paths}
    return os.path.join(folders.pop(), "") if len(folders) == 1 else ""
