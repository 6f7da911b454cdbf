"""Files of deepscan's own: their places, writing them whole or not at all, and never replacing other files."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from deepscan.errors import OutputError, UsageError

HOME_VARIABLE: Final = "DEEPSCAN_HOME"
NOWHERE: Final = Path("/nonexistent/deepscan")  # nothing is found there, and nothing can be kept
PRIVATE: Final = 0o700  # mode of folders that only their owner may read


def data_folder() -> Path:
    """Return the folder for what deepscan keeps between runs; it may not exist yet."""
    given = os.environ.get(HOME_VARIABLE)
    if given:
        return Path(given)
    shared = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(shared) if shared else Path.home() / ".local" / "share") / "deepscan"
    except RuntimeError:  # a user whom the system does not know, without $HOME, as in containers
        return NOWHERE


def atomic_write(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Write files under other names beside them, flush them to the disk, then rename them all.

    A name that is a link stays one. If anything fails, what was there stays and nothing else is left.

    Args:
        contents: the parts of each file, by its path.

    Raises:
        OSError: a file cannot be written.
    """
    targets = {Path(os.path.realpath(path)): parts for path, parts in contents.items()}
    partials = {path: _partial_of(path) for path in targets}
    try:
        for path, parts in targets.items():
            # Made anew: whatever has this name already, a link to another file perhaps, is not written to.
            partials[path].unlink(missing_ok=True)
            with open(partials[path], "xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            os.replace(partial, path)
    except BaseException:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                partial.unlink()
        raise
    for parent in {path.parent for path in targets}:
        flush_folder(parent)


def check_replaceable(path: Path) -> None:
    """Raise the OSError of `atomic_write` for a file that it cannot write before there are days of work to write."""
    partial = _partial_of(Path(os.path.realpath(path)))
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    partial.unlink()


def flush_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def is_partial_of(path: Path, name: str) -> bool:
    """Tell whether `atomic_write` may give this name, or may have given it, to a file beside `path`."""
    start, end = f".{path.name}.", ".partial"
    return name.startswith(start) and name.endswith(end) and name[len(start) : -len(end)].isdigit()


def remove_partials(path: Path) -> None:
    """Remove temporary files that processes killed in `atomic_write` left of a file that no process writes now."""
    real = Path(os.path.realpath(path))
    with contextlib.suppress(OSError):  # they do no harm
        for name in os.listdir(real.parent):
            if is_partial_of(real, name):
                real.with_name(name).unlink()


def refuse_other_file(path: Path, is_ours: Callable[[bytes], bool], *, advice: str) -> None:
    """Refuse to replace a file unless deepscan has written it; one that is missing or empty is no obstacle.

    Args:
        path: path of the file to write.
        is_ours: tells from the content of a file that is not empty.
        advice: what the UsageError says to do instead.
    """
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise UsageError(f"{path} exists and cannot be read ({error.strerror}): {advice}.") from error
    if data and not is_ours(data):
        raise UsageError(f"{path} exists and was not written by deepscan: {advice}.")


def holds(marker: bytes) -> Callable[[bytes], bool]:
    """Return a function that recognizes files by something that they contain."""
    return lambda data: marker in data


def json_with(names: Collection[str]) -> Callable[[bytes], bool]:
    """Return a function that recognizes JSON objects by their names."""

    def is_ours(data: bytes) -> bool:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and found.keys() >= set(names)

    return is_ours


def refuse_unwritable(path: str | os.PathLike[str], *, begins: bytes, kind: str) -> None:
    """Refuse a path at which no log or trace can be written; leave nothing there.

    Args:
        path: path of the file, which need not exist.
        begins: beginning of such a file, if it is not empty.
        kind: what it is: "log", "trace".

    Raises:
        OutputError: the file cannot be written, or is something else.
    """
    name = os.fspath(path)
    try:
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            os.unlink(name)
        except FileExistsError:
            if not os.path.isfile(name):
                raise OutputError(f"{name} is not a regular file: name a file for the {kind}.") from None
            with open(name, "r+b") as file:
                if file.read(len(begins)) not in (b"", begins):
                    raise OutputError(f"{name} exists and is not a {kind}: name another file, or delete it.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{name} cannot be written ({reason}): name a file elsewhere.") from error
