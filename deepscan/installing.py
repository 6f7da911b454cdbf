"""Commands that install what this installation lacks.

`deepscan` on the package index is another project's package. The metadata of this one (PEP 610) says where it was
installed from, so that an extra comes from the same place: a checkout, a folder, a wheel, a repository or the index.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from deepscan.errors import MachineError

DISTRIBUTION: Final = "deepscan-video"
RUNTIME: Final = "onnxruntime"
GPU_RUNTIME: Final = "onnxruntime-gpu"
OF_EXTRA: Final = re.compile(r"""^(?P<requirement>[^;]+);.*\bextra\s*==\s*["'](?P<extra>[^"']+)["']""")


def install_extra(extra: str) -> str:
    """Return the command that installs an extra into this interpreter's environment, quoted for a shell.

    Beside `onnxruntime-gpu` the extra's own packages are named: pip would see that this distribution lacks
    `onnxruntime`, install that as well, and so break both.
    """
    try:
        installed = distribution(DISTRIBUTION)
    except PackageNotFoundError:  # a copy of the package without its metadata
        return install_packages(f"{DISTRIBUTION}[{extra}]")
    if installed_version(GPU_RUNTIME) and not installed_version(RUNTIME):
        found = (OF_EXTRA.match(line) for line in installed.requires or ())
        return install_packages(*(match["requirement"].strip() for match in found if match and match["extra"] == extra))
    return install_packages(*_with_extra(extra, installed))


def install_packages(*arguments: str) -> str:
    """Return the command that installs packages into this interpreter's environment, by arguments of `pip install`."""
    return f"{_pip('install')} {shlex.join(arguments)}"


def replace_packages(unwanted: tuple[str, ...], wanted: str) -> str:
    """Return the commands that uninstall conflicting packages and install one of them."""
    yes = "" if find_spec("pip") is None else "-y "
    return f"{_pip('uninstall')} {yes}{shlex.join(unwanted)} && {install_packages(wanted)}"


def gpu_runtime() -> str:
    """Return the commands that make ONNX Runtime run on CUDA."""
    return f"{install_extra('cuda')} && {replace_packages((RUNTIME,), GPU_RUNTIME)}"


def _pip(verb: str) -> str:
    """Return what calls pip for this interpreter; uv's environments have none of their own."""
    python = shlex.quote(sys.executable or "python3")
    if find_spec("pip") is None:
        uv = f"uv pip {verb} --python {python}"
        return uv if shutil.which("uv") else f"{python} -m ensurepip && {python} -m pip {verb}"
    if sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        return f"{python} -m pip {verb} --break-system-packages"  # as this package must have been installed
    return f"{python} -m pip {verb}"


def _with_extra(extra: str, installed: Distribution) -> list[str]:
    """Return the arguments of `pip install` for this distribution with an extra, from where it came."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")  # there is none for a package of an index
    url = origin.get("url", "")
    parts = urlsplit(url)
    local = Path(unquote(parts.path)) if parts.scheme == "file" else None
    if not url or (local and not local.exists()):
        return [f"{DISTRIBUTION}[{extra}]=={installed.version}"]
    if local and origin.get("dir_info", {}).get("editable"):
        return ["-e", f"{local}[{extra}]"]
    if repository := origin.get("vcs_info"):
        url = f"{repository['vcs']}+{url}@{repository['commit_id']}"
    return [f"{DISTRIBUTION}[{extra}] @ {url}"]


def installed_version(package: str) -> str | None:
    """Return the version of an installed package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def needing_torch(doing: str) -> Iterator[None]:
    """Within this, a missing package of the extra `export`, or working folder, raises a MachineError that names it."""
    try:
        os.getcwd()
    except OSError as error:  # torch's libraries would end the process
        raise MachineError(f"{doing} needs a working folder, and this one was deleted: change to another.") from error
    with needing_packages(doing, "export"):
        yield


@contextmanager
def needing_packages(doing: str, extra: str) -> Iterator[None]:
    """Within this, a missing package of an extra raises a MachineError that names it."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{doing} needs the package {error.name}: run `{install_extra(extra)}`."
        raise MachineError(message) from error
