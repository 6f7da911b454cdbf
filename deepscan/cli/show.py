"""`deepscan show`: the results of a scan on the screen, all rows or one video."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

MOST_ROWS = 50


def show(
    results: Annotated[str, typer.Argument(metavar="RESULTS.jsonl", help="What `deepscan scan` has written.")],
    video: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Show this video: its path, or the end of it.", show_default=False),
    ] = None,
    status: Annotated[
        Literal[
            "scored",
            "no_face",
            "small_face",
            "too_short",
            "unreadable",
            "unsupported",
            "over_limit",
            "timeout",
            "crashed",
        ]
        | None,
        typer.Option(help="Only rows with this status.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Show so many rows at most.")] = MOST_ROWS,
) -> None:
    """Show the rows of a scan, or one video with its tracks, the course of its scores, reasons, and what ran.

    Exit code: 0 shown, 2 the results cannot be read, or no video is called so, or several.
    """
    from rich.console import Console

    from deepscan.cli.scan_display import printable
    from deepscan.cli.show_display import show_rows, show_video
    from deepscan.runtime.journal.stored_results import stored_results

    stored = stored_results(results)
    if stored.damaged:
        said = "line is damaged and was" if stored.damaged == 1 else "lines are damaged and were"
        print(f"deepscan: {stored.damaged} {said} passed over: {printable(results)}", file=sys.stderr)
    console = Console()
    found = stored.rows if video is None else stored.of_video(video)
    wanted = [(row, offset) for row, offset in found if status in (None, row.status)]
    if video is None or not wanted:
        show_rows([row for row, _ in wanted], rows, console)
        return
    for row, offset in wanted:
        show_video(row, stored.tracks_at(offset), console)
