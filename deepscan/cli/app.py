"""`deepscan`: the commands. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

from typing import Annotated

import typer

from deepscan.cli.bench import EXAMPLES as BENCH_EXAMPLES
from deepscan.cli.bench import bench
from deepscan.cli.calibrate import EXAMPLES as CALIBRATE_EXAMPLES
from deepscan.cli.calibrate import calibrate
from deepscan.cli.doctor import doctor
from deepscan.cli.evaluate import EXAMPLES as EVALUATE_EXAMPLES
from deepscan.cli.evaluate import evaluate
from deepscan.cli.export import EXAMPLES as EXPORT_EXAMPLES
from deepscan.cli.export import export
from deepscan.cli.models import models
from deepscan.cli.options import Command, Group
from deepscan.cli.scan import EXAMPLES as SCAN_EXAMPLES
from deepscan.cli.scan import scan
from deepscan.cli.show import EXAMPLES as SHOW_EXAMPLES
from deepscan.cli.show import show
from deepscan.cli.weights import app as weights

app = typer.Typer(
    cls=Group,
    name="deepscan",
    help="Scan videos for forged faces: one honest row per video.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(cls=Command, epilog=SCAN_EXAMPLES)(scan)
app.command(cls=Command, epilog=SHOW_EXAMPLES)(show)
app.command(cls=Command, epilog=EVALUATE_EXAMPLES)(evaluate)
app.command(cls=Command, epilog=CALIBRATE_EXAMPLES)(calibrate)
app.command(cls=Command)(models)
app.command(cls=Command)(doctor)
app.command(cls=Command, epilog=EXPORT_EXAMPLES)(export)
app.command(cls=Command, epilog=BENCH_EXAMPLES)(bench)
app.add_typer(weights, name="weights")


def _print_version(given: bool) -> None:
    if given:
        from deepscan.version import __version__

        print(f"deepscan {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; DEEPSCAN_DEBUG=1 does the same.")
    ] = False,
) -> None:
    """Scan videos for forged faces: one honest row per video."""
