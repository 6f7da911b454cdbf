"""Parts that other packages add, with entry points of the groups `deepscan.detectors`, `.backends` and `.writers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deepscan.errors import DeepscanError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def plugins(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by their names, in the order of these; nothing is imported."""
    from importlib.metadata import entry_points  # takes 20 ms, which built-in parts do not need

    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def load_plugin(
    entry: EntryPoint, what: str, *, wanted: str, fits: Callable[[Any], bool], raises: type[DeepscanError]
) -> Any:
    """Import what an entry point leads to.

    Args:
        entry: the entry point.
        what: what it adds, for the message: `detector toy`.
        wanted: what it must lead to, for the message: `Detector called toy`.
        fits: tells whether it leads to that.
        raises: kind of the error.

    Raises:
        DeepscanError: of the kind `raises`; it cannot be imported, or does not fit.
    """
    package = entry.dist.name if entry.dist is not None else "another package"
    message = f"The {what} that {package} adds cannot be used ({{}}): update or remove that package."
    try:
        found = entry.load()
    except Exception as error:  # another package's module may raise anything
        reason = " ".join(str(error).split())
        raise raises(message.format(f"{entry.value} raises {type(error).__name__}: {reason}")) from error
    if not fits(found):
        raise raises(message.format(f"{entry.value} is not a {wanted}"))
    return found
