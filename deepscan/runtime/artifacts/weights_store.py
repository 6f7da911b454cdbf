"""The weights store: the weights that were added on this machine, and the artifacts made of them.

    <data folder>/weights/<name>-<sha256 of the file that was added>/record.json, weights.safetensors, <name>.onnx, ...

The data folder is $DEEPSCAN_HOME, else $XDG_DATA_HOME/deepscan, else ~/.local/share/deepscan; only its owner may read
it. `deepscan.export.install` puts weights there and needs torch; using them does not.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from deepscan.errors import ModelError, OutputError
from deepscan.models.registry import detector_names, unknown_detector
from deepscan.runtime.system.files import data_folder

RECORD: Final = "record.json"
WEIGHTS: Final = "weights.safetensors"
HASH_DIGITS: Final = 12  # of a hash, in messages and lists

Kind: TypeAlias = Literal["detector", "face detector"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One set of weights.

    Attributes:
        schema: version of this record's format.
        sha256, file: hash and name of the file that was added.
        trained: False for random weights.
        added: when, in seconds since 1970.
        note: what was unwrapped and dropped when the file was read, in sentences.
    """

    schema: Literal[1] = 1
    name: str
    kind: Kind
    sha256: str
    file: str
    trained: bool
    added: float
    note: str

    @property
    def short_hash(self) -> str:
        """The digits of the hash that lists show and `name@hash` takes."""
        return self.sha256[:HASH_DIGITS]


@dataclass(frozen=True, slots=True)
class Installed:
    """A set of weights in the store."""

    record: Record
    folder: Path

    @property
    def model_path(self) -> Path:
        """Path of the ONNX file."""
        return self.folder / f"{self.record.name}.onnx"

    def size_bytes(self) -> int:
        """Return the size of all its files, in bytes."""
        return sum(file.stat().st_size for file in self.folder.iterdir())


def weights_folder(name: str, sha256: str) -> Path:
    """Return the folder of a detector's weights whose file has this hash."""
    return data_folder() / "weights" / f"{name}-{sha256}"


def installed() -> list[Installed]:
    """Return what is in the store, by name; of one name trained weights first, then the latest.

    Records that cannot be read are left out; see `damaged_folders`.
    """
    found = [Installed(record, folder) for folder, record in _records() if record is not None]
    return sorted(
        found, key=lambda entry: (entry.record.name, not entry.record.trained, -entry.record.added, entry.record.sha256)
    )


def damaged_folders() -> list[Path]:
    """Return the folders of the store whose record cannot be read: they can only be deleted."""
    return [folder for folder, record in _records() if record is None]


def find_installed(name: str, kind: Kind = "detector") -> Installed:
    """Return the weights of a detector: trained ones before random ones, then the latest.

    As `detector@hash`, with the first digits of a hash, the name means the weights with that hash.

    Raises:
        UsageError: no detector has that name.
        ModelError: there are none, or the hash fits several.
    """
    detector, at, prefix = name.partition("@")
    entries = [entry for entry in installed() if entry.record.name == detector and entry.record.kind == kind]
    if not entries and kind == "detector" and detector not in detector_names():
        raise unknown_detector(detector)
    if not entries:
        raise ModelError(
            f"No weights of a {kind} called {detector!r} are installed: see `deepscan models {detector}` for where its "
            "authors publish them, add that file with `deepscan weights add FILE`, and run this again."
        )
    fitting = [entry for entry in entries if entry.record.sha256.startswith(prefix)]
    if at and not (prefix and fitting):
        having = ", ".join(entry.record.short_hash for entry in entries)
        raise ModelError(f"No weights of {detector} begin with {prefix!r}: use one of {having}.")
    if at and len(fitting) > 1:
        raise ModelError(f"{name!r} could mean several weights: give more digits (see `deepscan weights list`).")
    return fitting[0]


def remove_installed(entry: Installed) -> None:
    """Delete a set of weights.

    Raises:
        OutputError: it cannot be deleted.
    """
    try:
        (entry.folder / RECORD).unlink()  # from here on it does not exist, whatever happens
        shutil.rmtree(entry.folder)
    except OSError as error:
        raise OutputError(f"{entry.folder} cannot be deleted ({error.strerror}): check its permissions.") from error


def _records() -> list[tuple[Path, Record | None]]:
    """Return every folder with its record; what another process removes meanwhile is not there."""
    found: list[tuple[Path, Record | None]] = []
    for path in (data_folder() / "weights").glob(f"*/{RECORD}"):
        try:
            found.append((path.parent, msgspec.json.decode(path.read_bytes(), type=Record)))
        except FileNotFoundError:
            continue
        except (OSError, msgspec.DecodeError):
            found.append((path.parent, None))
    return found
