"""Installs a plugin as pip would: a module and a `*.dist-info` with its entry point, in a folder on Python's path."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest


def install_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, *, module: str, group: str, entry: str) -> None:
    """Install a module of this folder for this process and for those that it starts, until the test ends.

    Args:
        folder: empty or missing; the plugin is put there.
        monkeypatch: what takes it away again.
        module: name of a file beside this one, without its ending, such as `toy_writer`.
        group: of the entry point, such as `deepscan.writers`.
        entry: line of `entry_points.txt`, such as `.toy = toy_writer:WRITER`.
    """
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name(f"{module}.py"), folder)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, module, raising=False)
    importlib.invalidate_caches()
