"""`deepscan show`: the results of a scan on the screen, all rows or one video."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from deepscan.cli.completion import complete_status

MOST_ROWS = 50
EXAMPLES = """Examples:

  deepscan show results.jsonl

  deepscan show results.jsonl --label fake --find interview

  deepscan show results.jsonl videos/a.mp4"""


def show(
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="The .jsonl that `deepscan scan` wrote, or the .csv beside it.")
    ],
    video: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="One video, by its path or the end of it.", show_default=False),
    ] = None,
    label: Annotated[
        Literal["fake", "real", "uncertain"] | None,
        typer.Option(help="Only rows with this label: fake, real or uncertain.", show_default=False, metavar="LABEL"),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS",
            help="Only rows with this status, such as no_face or unreadable.",
            show_default=False,
            autocompletion=complete_status,
        ),
    ] = None,
    find: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Only rows whose path contains this text, ignoring case.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        Literal["score", "path", "status", "time", "duration", "elapsed"],
        typer.Option(
            metavar="ORDER",
            help="score: highest first; path; status; time: last scanned first; duration: longest video first; "
            "elapsed: slowest scan first.",
        ),
    ] = "score",
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of rows to show.")] = MOST_ROWS,
) -> None:
    """Show the rows of a scan, highest score first, or everything that is known about one video.

    Of each video and detector, the latest result is shown.

    Exit code: 0 shown; 2 the results cannot be read, or FILE matches no video or several.
    """
    from rich.console import Console

    from deepscan.cli.screen import printable
    from deepscan.cli.show_display import in_order, show_rows, show_video
    from deepscan.runtime.store.stored_results import jsonl_path, stored_results
    from deepscan.wording import plural

    known_status = _known_status(status)
    results = jsonl_path(results)
    stored = stored_results(results)
    if stored.damaged:
        said = f"{plural(stored.damaged, 'line')} {plural(stored.damaged, 'is', 'are')} damaged and"
        was = plural(stored.damaged, "was", "were")
        print(f"deepscan: {stored.damaged} {said} {was} passed over: {printable(results)}", file=sys.stderr)
    console = Console()
    matching = [
        (row, offset)
        for row, offset in (stored.rows if video is None else stored.of_video(video))
        if known_status in (None, row.status)
        and label in (None, row.label)
        and (find is None or find.casefold() in row.path.casefold())
    ]
    if video is None or not matching:
        show_rows([row for row, _ in in_order(matching, sort)], rows, console)
        return
    for row, offset in matching:
        show_video(row, stored.tracks_at(offset), console)


def _known_status(status: str | None) -> str | None:
    """Return the status if it exists.

    Raises:
        UsageError: it does not.
    """
    from typing import get_args

    from deepscan.errors import UsageError
    from deepscan.results import Status

    if status is not None and status not in get_args(Status):
        raise UsageError(f"--status {status!r} is not known: use one of {', '.join(get_args(Status))}.")
    return status
