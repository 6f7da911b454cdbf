"""Options of `deepscan scan` that only the command line has: what is shown, written, and known from earlier runs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from deepscan.arguments import Option, path
from deepscan.options import HashChoice

DEFAULT_OUT = "results.csv"


class OutputOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options for the results of `deepscan scan`; the `help` of each field says what it means."""

    out: Annotated[
        str | None, Option("CSV to write, with a .jsonl beside it; - prints the CSV.", None, "FILE", DEFAULT_OUT)
    ] = None
    fail_on: Annotated[
        Literal["fake", "uncertain"] | None,
        Option(
            "Exit with code 4 if any result is labeled fake (or, with uncertain, fake or uncertain).", None, "LABEL"
        ),
    ] = None
    dry_run: Annotated[bool, Option("Only list what would be scanned.")] = False
    quiet: Annotated[bool, Option("Print no progress, table or warnings.", short="-q")] = False
    verbose: Annotated[bool, Option("Print each result as it comes.", short="-v")] = False
    config: Annotated[
        str | None,
        Option("TOML file that sets any of these options by name; the command line wins.", None, "FILE", check=path),
    ] = None
    show_config: Annotated[bool, Option("Print the options in force as a TOML file, and exit.")] = False
    from_file: Annotated[
        str | None,
        Option("File with one path per line, or paths separated by NUL bytes; - reads stdin.", "Inputs", "LIST"),
    ] = None
    jsonl: Annotated[str | None, Option("Print JSONL records to stdout instead of writing files.", "Results", "-")] = (
        None
    )
    csv_bom: Annotated[bool, Option("Begin the CSV with a byte order mark, for Excel.", "Results")] = False
    stats: Annotated[bool, Option("Print where the time went, stage by stage.", "Results")] = False
    log: Annotated[
        str | None, Option("File to append events to, one JSON object per line.", "Results", "FILE", check=path)
    ] = None
    retry_failed: Annotated[bool, Option("Scan again what could not be scanned before.", "Going on")] = False
    fresh: Annotated[bool, Option("Ignore earlier results in this --out and start over.", "Going on")] = False
    prune: Annotated[bool, Option("Leave rows of other inputs and detectors out of the CSV.", "Going on")] = False
    hash: Annotated[
        HashChoice,
        Option("Hash that identifies files: fast (head, middle and tail) or full (every byte).", "Going on", "HOW"),
    ] = "fast"
