"""What `deepscan show` prints: the rows of a JSONL as a table, or one video with the course of its tracks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from deepscan.cli.scan_display import STYLES, printable
from deepscan.cli.show_tracks import track_lines

if TYPE_CHECKING:
    from rich.console import Console

    from deepscan.runtime.journal.results import TrackResult
    from deepscan.runtime.journal.stored_results import StoredResult

BLOCKS = "▁▂▃▄▅▆▇█"
NAME_WIDTH = 12
VIDEO_WIDTH = 20
HASH_DIGITS = 12
NARROWEST_PLOT = 10


def show_rows(rows: Sequence[StoredResult], most: int, console: Console) -> None:
    """Print a table of the first rows, how many there are of each status, and how to see more."""
    shown = rows[:most]
    if shown:
        console.print(_table(shown))
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(Counter(row.status for row in rows).items()))
    _say(console, f"{len(rows)} row{'' if len(rows) == 1 else 's'}{': ' if rows else ''}{statuses}.")
    if len(shown) < len(rows):
        _say(console, f"The first {len(shown)} are shown: --rows {len(rows)} shows all, --status STATUS some.")


def show_video(row: StoredResult, tracks: Sequence[TrackResult], console: Console) -> None:
    """Print all that is known of one video from one detector."""
    _say(console, Text(printable(row.path), style="bold"))
    for name, value in _facts(row):
        _say(console, Text.assemble(f"  {name:<{NAME_WIDTH}}", value))
    if tracks:
        console.print()
        for line in plot(tracks, row.duration_seconds, console.width):
            console.print(Text(line), soft_wrap=True)
    for sentence in track_lines(row, tracks):
        _say(console, f"  {sentence}")
    if row.tracks > len(tracks):
        _say(console, f"  The other {row.tracks - len(tracks)} tracks are not kept one by one.")
    console.print()


def plot(tracks: Sequence[TrackResult], duration_seconds: float | None, columns: int) -> Iterator[str]:
    """Yield one line for each track, and one with the times below them.

    Args:
        tracks: at least one.
        duration_seconds: of the video, if that is known.
        columns: that a line may take.
    """
    ends = [segment.end_seconds for track in tracks for segment in track.timeline]
    # A stated length may be made up: an axis of years would show a film in one column.
    length = max([*ends, 1e-3])
    if duration_seconds is not None and length < duration_seconds < 2 * length:
        length = duration_seconds
    labels = [
        (f"  {track.track:>3}  {track.start_seconds:.1f}-{track.end_seconds:.1f} s", f"{track.score:.3f}")
        for track in tracks
    ]
    before = max(len(label) for label, _ in labels) + 2
    width = max(NARROWEST_PLOT, columns - before - len("  0.000 "))
    yield f"{'  track':<{before}}{'probability of fake, ▁ 0 to █ 1':<{width}}  score"
    for track, (label, score) in zip(tracks, labels, strict=True):
        yield f"{label:<{before}}{_bar(track, length, width)}  {score}"
    middle, end = f"{length / 2:.1f} s", f"{length:.1f} s"
    axis = f"{'0 s':<{width // 2}}{middle}"
    yield " " * before + (f"{axis}{end:>{width - len(axis)}}" if len(axis) + len(end) < width else f"0 s to {end}")


def _bar(track: TrackResult, length: float, width: int) -> str:
    """Draw a track: each column shows the highest score in it, so that no short forgery disappears."""
    highest: list[float | None] = [None] * width
    for segment in track.timeline:
        first = min(width - 1, max(0, math.floor(segment.start_seconds / length * width)))
        last = min(width - 1, max(first, math.ceil(segment.end_seconds / length * width) - 1))
        for column in range(first, last + 1):
            highest[column] = max(segment.score, highest[column] or 0.0)
    return "".join(" " if score is None else _block(score) for score in highest)


def _block(score: float) -> str:
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(score * len(BLOCKS))))]


def _table(rows: Sequence[StoredResult]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("status", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("label", no_wrap=True)
    names_models = len({row.model for row in rows}) > 1
    if names_models:
        table.add_column("model", overflow="fold")
    table.add_column("video", overflow="fold", min_width=VIDEO_WIDTH)
    noted = any(row.reason for row in rows)
    if noted:
        table.add_column("reason", overflow="fold", ratio=1)
    for row in rows:
        table.add_row(
            row.status,
            "" if row.score is None else f"{row.score:.3f}",
            Text(row.label or "", style=STYLES.get(row.label or "", "")),
            *([Text(printable(row.model))] if names_models else []),
            Text(printable(row.path)),
            *([Text(printable(row.reason))] if noted else []),
        )
    return table


def _facts(row: StoredResult) -> Iterator[tuple[str, Text]]:
    verdict = "" if row.score is None else f", {row.score:.4f}, "
    label = Text(row.label or "", style=STYLES.get(row.label or "", ""))
    yield "status", Text.assemble(row.status, verdict, label if verdict else "")
    if row.reason:
        yield "reason", Text(printable(row.reason))
    if row.peak_score is not None and row.peak_start_seconds is not None and row.peak_end_seconds is not None:
        yield "peak", Text(f"{row.peak_score:.4f} at {row.peak_start_seconds:.1f}-{row.peak_end_seconds:.1f} s")
    if row.width is not None and row.height is not None:
        size = f"{row.width} x {row.height} pixels, {printable(row.codec or 'unknown codec')}"
        yield "video", Text(size if row.duration_seconds is None else f"{size}, {row.duration_seconds:.1f} s")
    looked = f"frames {row.frames}, faces at once {row.faces}, tracks {row.tracks}, crops or clips {row.clips}"
    yield "looked at", Text(looked)
    ran = ", ".join(part for part in (row.model, row.backend, row.precision) if part)
    yield "ran", Text(printable(f"{ran}, {row.elapsed_seconds:.1f} s"))
    hashes = f"weights {row.weights_sha256[:HASH_DIGITS]}, settings {row.settings_sha256[:HASH_DIGITS]}"
    yield "sha256", Text(printable(hashes))


def _say(console: Console, line: str | Text) -> None:
    """Print a line, not folded: names stay whole, to be copied."""
    console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)
