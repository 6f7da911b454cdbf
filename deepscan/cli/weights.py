"""`deepscan weights`: add what detectors' authors publish, list it, remove it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from types import ModuleType

    from deepscan.runtime.weights_store import Installed

app = typer.Typer(no_args_is_help=True, help="Add, list and remove the weights of detectors.")
HASH_DIGITS = 12


@app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints: .pth, .pkl, .bin, .safetensors ...")],
    variant: Annotated[
        Literal["deepfakebench"] | None,
        typer.Option(help="Whose training it is, if not the authors'.", show_default="the authors'"),
    ] = None,
) -> None:
    """Recognise the detector of a checkpoint, verify it, and make it ready for `deepscan scan --model`."""
    from rich.console import Console

    install = _install_module()
    console = Console(stderr=True)
    for file in files:
        with console.status(f"Adding {file} ..."):
            entry = install.add_weights(file, variant=variant)
        _say_added(console, entry)


@app.command()
def random(
    detector: Annotated[str, typer.Argument(help="Name of the detector, see `deepscan models`.")],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal weights.")] = 0,
) -> None:
    """Make random weights, to measure speed without trained ones. Their scores mean nothing, and results say so."""
    from rich.console import Console

    install = _install_module()
    console = Console(stderr=True)
    with console.status(f"Making random weights of {detector} ..."):
        entry = install.add_random_weights(detector, seed=seed)
    _say_added(console, entry)


@app.command(name="list")
def list_() -> None:
    """List the weights that were added; of one detector the first is what --model takes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deepscan.runtime.weights_store import data_folder, installed

    entries = installed()
    if not entries:
        Console().print(f"No weights were added (they would be in {data_folder()}).", highlight=False, soft_wrap=True)
        return
    table = Table(title=f"In {data_folder()}", title_justify="left", box=SIMPLE_HEAD)
    for column in ("name", "file", "sha256", "added", "size"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        record = entry.record
        name = Text(record.name) if record.trained else Text(f"{record.name} (untrained)", "bold red")
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.added))
        size = f"{entry.size_bytes() / 1e6:.0f} MB"
        table.add_row(name, Text(record.file), record.sha256[:HASH_DIGITS], day, size)
    Console().print(table)


@app.command()
def remove(
    names: Annotated[list[str], typer.Argument(help="name, or name@hash where there are several.")],
) -> None:
    """Delete weights that were added."""
    from rich.console import Console

    from deepscan.errors import UsageError
    from deepscan.runtime.weights_store import find_installed, installed, remove_installed

    for name in names:
        entry = find_installed(name)
        several = [other for other in installed() if other.record.name == entry.record.name]
        if "@" not in name and len(several) > 1:
            hashes = ", ".join(f"{name}@{other.record.sha256[:HASH_DIGITS]}" for other in several)
            raise UsageError(f"There are {len(several)} sets of weights of {name}: name one of {hashes}.")
        remove_installed(entry)
        Console(stderr=True).print(
            f"Removed {entry.record.name}@{entry.record.sha256[:HASH_DIGITS]} ({entry.record.file}).", highlight=False
        )


def _say_added(console: object, entry: Installed) -> None:
    from rich.console import Console
    from rich.text import Text

    assert isinstance(console, Console)
    record = entry.record
    use = f"--face-detector {record.name}" if record.kind == "face detector" else f"--model {record.name}"
    console.print(
        Text(f"{record.file}: {record.name}, sha256 {record.sha256[:HASH_DIGITS]}. Use it with `deepscan scan {use}`."),
        soft_wrap=True,
    )
    if record.note:
        console.print(Text(record.note), soft_wrap=True)
    if not record.trained:
        console.print(Text("These weights are random: the scores mean nothing.", "bold red"))


def _install_module() -> ModuleType:
    from deepscan.errors import MachineError

    try:
        from deepscan.export import install
    except ModuleNotFoundError as error:
        message = f"Adding weights needs the package {error.name}: run `pip install 'deepscan[export]'`."
        raise MachineError(message) from error
    return install
