"""`deepscan weights`: add what detectors' authors publish, list it, remove it, install calibrations for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from deepscan.arguments import SEEDS, Option
from deepscan.cli.completion import complete_added, complete_detector
from deepscan.cli.export_options import ConversionOptions
from deepscan.cli.options import Command, Group, options_from, takes_options
from deepscan.errors import UsageError
from deepscan.installing import needing_torch
from deepscan.wording import printable

if TYPE_CHECKING:
    from types import ModuleType

    from rich.console import Console

    from deepscan.runtime.artifacts.weights_store import Installed

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Add, list and remove the weights of detectors, and install calibrations."
)


@app.command(cls=Command)
@takes_options(ConversionOptions)
def add(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Checkpoints: .pth, .pkl, .bin, .safetensors ...")
    ],
    **given: Any,
) -> None:
    """Recognize the detector of a checkpoint, verify its weights, and make them ready for `deepscan scan --model`."""
    from rich.console import Console

    from deepscan.cli.screen import log_shown

    (options,) = options_from(given, ConversionOptions)
    install = _install_module()
    console = Console(stderr=True)
    for file in files:
        with console.status(f"Adding {file} ...") as status, log_shown(status, file):
            entry = install.add_weights(file, variant=options.variant, form=options.form)
        _say_added(console, entry)


class RandomOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `deepscan weights random`."""

    seed: Annotated[int, Option("Seed; equal seeds give equal weights.", metavar="N", bounds=SEEDS)] = 0


@app.command(cls=Command)
@takes_options(RandomOptions)
def random(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the detector, see `deepscan models`.", autocompletion=complete_detector
        ),
    ],
    **given: Any,
) -> None:
    """Make random weights, to measure speed without trained ones. Their scores mean nothing, and results say so."""
    from rich.console import Console

    from deepscan.cli.screen import log_shown

    (options,) = options_from(given, RandomOptions)
    install = _install_module()
    console = Console(stderr=True)
    with console.status(f"Making random weights of {detector} ...") as status, log_shown(status, detector):
        entry = install.add_random_weights(detector, seed=options.seed)
    _say_added(console, entry)


@app.command(cls=Command, name="list")
def list_() -> None:
    """List the added weights; --model takes the first of each detector."""
    from rich.console import Console
    from rich.text import Text

    from deepscan.runtime.artifacts.weights_store import damaged_folders, installed
    from deepscan.runtime.system.files import data_folder

    console = Console()
    entries = installed()
    if not entries:
        console.print(f"No weights were added (they would be in {data_folder()}).", highlight=False, soft_wrap=True)
    for entry in entries:
        record = entry.record
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.added))
        facts = f"{printable(record.file)}, added {day}, {entry.size_bytes() / 1e6:.0f} MB"
        mark = Text("" if record.trained else "(untrained) ", "bold red")
        title = Text(f"{record.name}@{record.short_hash}  ")
        console.print(title, mark, Text(facts), sep="", soft_wrap=True)
    for folder in damaged_folders():
        console.print(Text(f"{folder}: its record cannot be read; delete this folder.", "yellow"), soft_wrap=True)


@app.command(cls=Command)
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Name of the detector, or name@hash where there are several.",
            autocompletion=complete_added,
        ),
    ],
) -> None:
    """Delete weights that were added, with the profiles that were installed for them."""
    from rich.console import Console

    from deepscan.runtime.artifacts.artifacts import EMBEDDED
    from deepscan.runtime.artifacts.profile_store import installed_profiles, remove_profile
    from deepscan.runtime.artifacts.weights_store import installed, remove_installed

    for name in names:
        detector, _, prefix = name.partition("@")
        if detector in EMBEDDED:
            raise UsageError(f"{detector} comes inside deepscan: its weights were not added and cannot be removed.")
        of_name = [entry for entry in installed() if entry.record.name == detector]
        fitting = [entry for entry in of_name if entry.record.sha256.startswith(prefix)]
        if len(fitting) != 1:
            having = ", ".join(f"{detector}@{entry.record.short_hash}" for entry in of_name)
            few = f"{len(fitting)} sets of weights" if fitting else "No weights"
            use = f"name one of {having}" if having else "see `deepscan weights list`"
            raise UsageError(f"{few} here match {name}: {use}.")
        [entry] = fitting
        remove_installed(entry)
        for profile in installed_profiles():
            if profile.weights_sha256 == entry.record.sha256:
                remove_profile(profile)
        Console(stderr=True).print(
            f"Removed {entry.record.name}@{entry.record.short_hash} ({entry.record.file}).", highlight=False
        )


class CalibrateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `deepscan weights calibrate`."""

    remove: Annotated[bool, Option("Remove the installed profiles of the detector.")] = False


@app.command(cls=Command)
@takes_options(CalibrateOptions)
def calibrate(
    detector: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the detector, see `deepscan models`.", autocompletion=complete_detector
        ),
    ],
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="Calibration profile of the detector.")] = None,
    **given: Any,
) -> None:
    """Apply a calibration profile to every scan with its detector, weights and settings; --remove undoes it."""
    from deepscan.profiles import read_profile
    from deepscan.runtime.artifacts.profile_store import install_profile, installed_profiles, remove_profile
    from deepscan.runtime.artifacts.weights_store import HASH_DIGITS
    from deepscan.runtime.pipeline.calibrations import bare_name

    (options,) = options_from(given, CalibrateOptions)
    if options.remove == (file is not None):
        raise UsageError("deepscan weights calibrate NAME takes either the file of a profile or --remove.")
    if file is not None:
        profile = read_profile(file)
        if detector not in (profile.detector, bare_name(profile.detector)):
            raise UsageError(f"{file} is a profile of {profile.detector}, not of {detector}: give that name.")
        install_profile(profile)
        _say(f"Scans with {profile.detector} and the settings of {file} are calibrated by it from now on.")
        return
    found = [each for each in installed_profiles() if detector in (each.detector, bare_name(each.detector))]
    if not found:
        raise UsageError(f"No profile of {detector} is installed: see `deepscan models` for those that are.")
    for profile in found:
        remove_profile(profile)
        _say(f"Removed the profile of {profile.detector} for the settings {profile.settings_sha256[:HASH_DIGITS]}.")


def _say(sentence: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(printable(sentence)), soft_wrap=True)


def _say_added(console: Console, entry: Installed) -> None:
    from rich.text import Text

    record = entry.record
    use = f"--face-detector {record.name}" if record.kind == "face detector" else f"--model {record.name}"
    console.print(
        Text(f"{record.file}: {record.name}, sha256 {record.short_hash}. Use it with `deepscan scan {use}`."),
        soft_wrap=True,
    )
    if record.note:
        console.print(Text(record.note), soft_wrap=True)
    if not record.trained:
        console.print(Text("These weights are random: the scores mean nothing.", "bold red"))


def _install_module() -> ModuleType:
    with needing_torch("Adding weights"):
        from deepscan.export import install
    return install
