"""Checks of what programs pass to `deepscan.scan`: kinds and ranges, before anything is looked at."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Final, TypeVar

from deepscan.errors import UsageError

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
# What messages between processes and C libraries can hold; no video and no machine has more.
LARGEST_COUNT: Final = 2**31 - 1
LARGEST_SIZE: Final = 2**63 - 1
LONGEST_SECONDS: Final = 10.0**9
T = TypeVar("T")


def whole_number(option: str, value: object, *, least: int = 1, most: int = LARGEST_COUNT) -> int:
    """Return a whole number of Python's own kind.

    Args:
        option: that it is for, as on the command line.
        value: a whole number of any kind, NumPy's too.
        least: the smallest that makes sense.
        most: the largest.

    Raises:
        UsageError: it is no whole number, or out of this range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{option} must be a whole number, not {_shown(value)}.")
    number = int(value)
    if number < least:
        raise UsageError(f"{option} must be at least {least}, not {number}.")
    if number > most:
        raise UsageError(f"{option} is too large: use at most {most:,}.")
    return number


def number(option: str, value: object) -> float:
    """Return a number of Python's own kind, which may be infinite or none.

    Raises:
        UsageError: it is not a number, or larger than any float.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{option} must be a number, not {_shown(value)}.")
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{option} is too large: use at most {LONGEST_SECONDS:,.0f}.") from error


def probability(option: str, value: object) -> float:
    """Return a probability.

    Raises:
        UsageError: it is none.
    """
    given = number(option, value)
    if not 0.0 <= given <= 1.0:
        raise UsageError(f"{option} is a probability between 0 and 1, not {given}.")
    return given


def seconds(option: str, value: object) -> float:
    """Return a duration.

    Raises:
        UsageError: it is none, or longer than a process can wait for.
    """
    given = number(option, value)
    if not given > 0:
        raise UsageError(f"{option} must be more than 0 seconds, not {given:g}.")
    if given > LONGEST_SECONDS:
        raise UsageError(f"{option} is too large: use at most {LONGEST_SECONDS:,.0f} seconds.")
    return given


def optional(check: Callable[[str, object], T], option: str, value: object) -> T | None:
    """Return None as it is, and anything else checked."""
    return None if value is None else check(option, value)


def truth(option: str, value: object) -> bool:
    """Return True or False.

    Raises:
        UsageError: it is neither; a word such as "no" would be taken for True.
    """
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's
        raise UsageError(f"{option} must be True or False, not {_shown(value)}.")
    return bool(value)


def one_of(option: str, value: object, accepted: Sequence[str]) -> None:
    """Refuse a word that is not among those accepted.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(value, str) or value not in accepted:
        raise UsageError(f"{option} {_shown(value)} is not known: use one of {', '.join(accepted)}.")


def text(option: str, value: object) -> str:
    """Return text.

    Raises:
        UsageError: it is something else.
    """
    if not isinstance(value, str):
        raise UsageError(f"{option} must be text, not {_shown(value)}.")
    return value


def texts(option: str, value: object) -> tuple[str, ...]:
    """Return several texts; one may be given by itself.

    Raises:
        UsageError: one of them is something else.
    """
    return tuple(text(option, each) for each in _each(option, value, (str,), "text, or a list of it"))


def path(option: str, value: object) -> str:
    """Return a path as text, undecodable bytes as surrogate escapes.

    Raises:
        UsageError: it is no path.
    """
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise UsageError(f"{option} must be a path, not {_shown(value)}.")
    return os.fsdecode(value)


def paths(option: str, value: object) -> tuple[str, ...]:
    """Return several paths; one may be given by itself.

    Raises:
        UsageError: one of them is something else.
    """
    singly = (str, bytes, os.PathLike)
    return tuple(path(option, each) for each in _each(option, value, singly, "a path, or a list of paths"))


def detectors(value: object) -> list[str]:
    """Return the names of detectors: one text with commas between them, or several texts or paths.

    Raises:
        UsageError: they are something else.
    """
    if isinstance(value, str):
        return [name.strip() for name in value.split(",")]
    what = "the name of a detector, or a list of names"
    return [path("--model", each) for each in _each("--model", value, (bytes, os.PathLike), what)]


def _each(option: str, value: object, singly: tuple[type, ...], what: str) -> Iterable[object]:
    if isinstance(value, singly):
        return (value,)
    if not isinstance(value, Iterable):
        raise UsageError(f"{option} must be {what}, not {_shown(value)}.")
    return value


def _shown(value: Any) -> str:
    """Return a value for a message: its type where it says more, or where the value is long."""
    if value is None:
        return "None"
    if isinstance(value, str) and len(value) <= 40:
        return repr(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    shown = repr(value)
    kind = type(value).__name__
    return f"{shown} ({kind})" if len(shown) <= 40 else f"a value of the type {kind}"
