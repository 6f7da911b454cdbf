"""Keeping libraries from calling home, and from leaving files outside deepscan's own folders.

ONNX Runtime's telemetry is turned off in `deepscan/__init__.py`, as that has to happen before anything else.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

OPENVINO_TELEMETRY: Final = "openvino_telemetry"
# `getpass.getuser` takes the first that is set; without any it asks the system's user database, maybe over a network.
USER_VARIABLES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")
# Without it Fontconfig, which Matplotlib asks for fonts, writes a cache into the home folder or the system's.
FONTS: Final = "<!DOCTYPE fontconfig SYSTEM 'fonts.dtd'><fontconfig><cachedir>{}</cachedir></fontconfig>"


@contextmanager
def openvino_telemetry_absent() -> Iterator[None]:
    """Import OpenVINO within this: it then takes its telemetry package for one that is not installed.

    With the package, the import alone writes `~/intel` and connects to an analytics service.
    """
    before = sys.modules.get(OPENVINO_TELEMETRY)
    sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[OPENVINO_TELEMETRY]
        else:
            sys.modules[OPENVINO_TELEMETRY] = before


@contextmanager
def torch_files_removed() -> Iterator[None]:
    """Trace modules within this: what torch's compiler keeps on the disk is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="deepscan-") as folder:
        variables = {"TORCHINDUCTOR_CACHE_DIR": folder}
        if not any(os.environ.get(name) for name in USER_VARIABLES):
            variables[USER_VARIABLES[0]] = str(os.getuid())
        with _environment(variables):
            yield


@contextmanager
def matplotlib_files_removed() -> Iterator[None]:
    """Import and use Matplotlib within this: its settings, its cache and Fontconfig's are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="deepscan-") as folder:
        fonts = Path(folder) / "fonts.conf"
        fonts.write_text(FONTS.format(folder))
        with _environment({"MPLCONFIGDIR": folder, "FONTCONFIG_FILE": str(fonts)}):
            yield


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
