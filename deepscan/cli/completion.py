"""Completions of a shell for options and commands. Modules are imported only when Tab is pressed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepscan.runtime.artifacts.weights_store import Installed


def complete_models(incomplete: str) -> list[str]:
    """Offer detectors for a list with commas: those that can scan here, and .onnx files."""
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    offered = [name for name in [*_usable(), *_onnx_files(last)] if name.startswith(last) and name not in taken]
    return [f"{before}{comma}{name}" for name in dict.fromkeys(offered)]


def complete_detector(incomplete: str) -> list[str]:
    """Offer everything that `deepscan models` knows, with and without weights."""
    from deepscan.models.registry import FACE_DETECTORS, detector_names

    return _beginning(incomplete, [*detector_names(), *FACE_DETECTORS])


def complete_exportable(incomplete: str) -> list[str]:
    """Offer every detector, and .onnx files."""
    return [*complete_detector(incomplete), *_beginning(incomplete, _onnx_files(incomplete))]


def complete_added(incomplete: str) -> list[str]:
    """Offer the weights that were added: the name, and the name with its hash where there are several."""
    entries = _installed()
    names = [entry.record.name for entry in entries]
    with_hash = [f"{entry.record.name}@{entry.record.short_hash}" for entry in entries]
    return _beginning(incomplete, [*(name for name in names if names.count(name) == 1), *with_hash])


def _usable() -> list[str]:
    """Return the detectors that can scan here: those in the package, and those whose weights were added."""
    from deepscan.runtime.artifacts.artifacts import EMBEDDED

    added = [entry.record.name for entry in _installed() if entry.record.kind == "detector"]
    return [*EMBEDDED, *added]


def _installed() -> list[Installed]:
    from deepscan.runtime.artifacts.weights_store import installed

    try:
        return installed()
    except OSError:  # a folder that may not be read: there is nothing to offer
        return []


def _onnx_files(incomplete: str) -> list[str]:
    """Return the .onnx files and the folders that complete a path."""
    folder = os.path.dirname(incomplete)
    try:
        with os.scandir(folder or ".") as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
    names = [
        f"{name}{os.sep}" if is_folder else name for name, is_folder in sorted(found) if incomplete or not is_folder
    ]
    return [os.path.join(folder, name) for name in names if name.endswith((".onnx", os.sep))]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
