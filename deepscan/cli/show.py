"""`deepscan show`: the results of a scan on the screen, all rows or one video."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import msgspec
import typer

from deepscan.arguments import Option
from deepscan.cli.options import options_from, takes_options
from deepscan.results import Label, Status

EXAMPLES = """Examples:

  deepscan show results.jsonl

  deepscan show results.jsonl --label fake --find interview

  deepscan show results.jsonl videos/a.mp4"""


class ShowOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `deepscan show`; the `help` of each field says what it means."""

    label: Annotated[Label | None, Option("Only rows with this label: fake, real or uncertain.", metavar="LABEL")] = (
        None
    )
    status: Annotated[
        Status | None, Option("Only rows with this status, such as no_face or unreadable.", metavar="STATUS")
    ] = None
    find: Annotated[str | None, Option("Only rows whose path contains this text, ignoring case.", metavar="TEXT")] = (
        None
    )
    sort: Annotated[
        Literal["score", "path", "status", "time", "duration", "elapsed"],
        Option(
            "score: highest first; path; status; time: last scanned first; duration: longest video first; elapsed: "
            "slowest scan first.",
            metavar="ORDER",
        ),
    ] = "score"
    rows: Annotated[int, Option("Maximum number of rows to show.", metavar="N")] = 50


@takes_options(ShowOptions)
def show(
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="The .jsonl that `deepscan scan` wrote, or the .csv beside it.")
    ],
    video: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="One video, by its path or the end of it.", show_default=False),
    ] = None,
    **given: Any,
) -> None:
    """Show the rows of a scan, highest score first, or everything that is known about one video.

    Of each video and detector, the latest result is shown.

    Exit code: 0 shown; 2 the results cannot be read, or FILE matches no video or several.
    """
    from rich.console import Console

    from deepscan.cli.show_display import in_order, show_rows, show_video
    from deepscan.runtime.store.stored_results import jsonl_path, stored_results
    from deepscan.wording import counted, printable

    (options,) = options_from(given, ShowOptions)
    results = jsonl_path(results)
    stored = stored_results(results)
    if stored.damaged:
        are, were = ("is", "was") if stored.damaged == 1 else ("are", "were")
        said = f"{counted(stored.damaged, 'line')} {are} damaged and {were} passed over"
        print(f"deepscan: {said}: {printable(results)}", file=sys.stderr)
    console = Console()
    matching = [
        (row, offset)
        for row, offset in (stored.rows if video is None else stored.of_video(video))
        if options.status in (None, row.status)
        and options.label in (None, row.label)
        and (options.find or "").casefold() in row.path.casefold()
    ]
    if video is None or not matching:
        show_rows([row for row, _ in in_order(matching, options.sort)], options.rows, console)
        return
    for row, offset in matching:
        show_video(row, stored.tracks_at(offset), console)
