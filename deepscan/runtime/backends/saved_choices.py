"""The backends that `deepscan bench --save` found to be the fastest here, which `--backend auto` takes.

    <data folder>/backends/<sha256 of the artifact>-<device>.json

Deleting a file makes `auto` follow its own order again.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import msgspec

from deepscan.options import Arithmetic
from deepscan.runtime.system.files import PRIVATE, atomic_write, data_folder
from deepscan.runtime.system.machine import Device, Environment, environment

log = logging.getLogger(__name__)


class SavedChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fastest backend for one artifact on one machine, within the parity budget of its precision.

    Attributes:
        schema: version of this record's format.
        file, sha256: of the artifact.
        device: where it ran.
        backend, precision: the fastest.
        items_per_second: crops or clips.
        max_difference: of its scores from ONNX Runtime's on the CPU, over the crops or clips it was timed on.
        measured: time of the measurement, in seconds since 1970.
        machine: machine and versions that the figures depend on; elsewhere the choice does not hold.
    """

    schema: Literal[1] = 1
    file: str
    sha256: str
    device: Device
    backend: str
    precision: Arithmetic
    items_per_second: float
    max_difference: float
    measured: float
    machine: Environment


def choice_path(sha256: str, device: Device) -> Path:
    """Return the file of a choice; it may not exist yet."""
    return data_folder() / "backends" / f"{sha256}-{device}.json"


def save_choice(choice: SavedChoice) -> Path:
    """Save a choice where only its owner may read it, and return its file.

    Raises:
        OSError: the file cannot be written.
    """
    path = choice_path(choice.sha256, choice.device)
    path.parent.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    path.parent.mkdir(mode=PRIVATE, exist_ok=True)
    atomic_write({path: [msgspec.json.format(msgspec.json.encode(choice), indent=2) + b"\n"]})
    return path


def saved_choice(sha256: str, device: Device) -> SavedChoice | None:
    """Return the choice for an artifact; None where there is none that holds for this machine."""
    choice = _read(choice_path(sha256, device))
    if choice is None or (choice.sha256, choice.device) != (sha256, device):
        return None
    if choice.machine != environment():
        log.info("%s: measured with other versions or on another machine: run `deepscan bench --save`", choice.file)
        return None
    return choice


def saved_choices() -> list[tuple[Path, SavedChoice]]:
    """Return every choice that can be read with its file, whether or not it holds for this machine."""
    files = sorted((data_folder() / "backends").glob("*.json"))
    return [(path, choice) for path in files if (choice := _read(path)) is not None]


def _read(path: Path) -> SavedChoice | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SavedChoice)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s cannot be read (%s): delete it, or run `deepscan bench --save`", path, error)
        return None
