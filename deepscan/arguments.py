"""Checks of options and arguments: their kinds and ranges, the same for programs and for the command line.

Larger numbers would be refused anyhow, only later and with a traceback: by messages between processes (64 bits), by
FFmpeg and ONNX Runtime (often 32), or by a clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Final, TypeVar

from deepscan.errors import UsageError

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
MOST_COUNT: Final = 2**31 - 1
MOST_SAMPLES: Final = 1_000_000  # frames or stretches picked out of one video: their times are kept in memory
MOST_BYTES: Final = 2**50  # a pebibyte; of pixels and of whatever else is counted in such numbers, too
MOST_SECONDS: Final = 1e9  # 31 years
MOST_THREADS: Final = 1024
MOST_SEED: Final = 2**63 - 1
MOST_SHOWN: Final = 40  # characters of a value in a message
T = TypeVar("T")


def whole_number(option: str, value: object, *, least: int = 1, most: int = MOST_COUNT) -> int:
    """Return a whole number of Python's own kind.

    Args:
        option: that it is for, as on the command line.
        value: a whole number of any kind, NumPy's too.
        least: the smallest that is allowed.
        most: the largest that is allowed.

    Raises:
        UsageError: it is no whole number, or out of this range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise UsageError(f"{option} must be a whole number from {least} to {most:,}, not {_shown(value)}.")
    return int(value)


def real_number(option: str, value: object, *, least: float, most: float, above: bool = False) -> float:
    """Return a number of Python's own kind.

    Args:
        option: that it is for, as on the command line.
        value: a number of any kind, NumPy's too.
        least: the smallest that is allowed, in the unit of the option.
        most: the largest that is allowed.
        above: whether `least` itself is refused.

    Raises:
        UsageError: it is no number, or out of this range.
    """
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else None
    if number is None or not least <= number <= most or (above and number == least):
        lowest = f"more than {least:g} and at most" if above else f"from {least:g} to"
        raise UsageError(f"{option} must be a number {lowest} {most:,g}, not {_shown(value)}.")
    return float(number)


def probability(option: str, value: object) -> float:
    """Return a probability.

    Raises:
        UsageError: it is none.
    """
    return real_number(option, value, least=0, most=1)


def seconds(option: str, value: object) -> float:
    """Return a duration.

    Raises:
        UsageError: it is none, or longer than a process can wait for.
    """
    return real_number(option, value, least=0, most=MOST_SECONDS, above=True)


def optional(check: Callable[..., T], option: str, value: object, **bounds: int) -> T | None:
    """Return None as it is, and anything else checked."""
    return None if value is None else check(option, value, **bounds)


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
    return tuple(text(option, each) for each in _each(option, value, (str, bytes), "text, or a list of it"))


def function(option: str, value: Any) -> Any:
    """Return what can be called.

    Raises:
        UsageError: it cannot be.
    """
    if not callable(value):
        raise UsageError(f"{option} must be a function, not {_shown(value)}.")
    return value


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
    if isinstance(value, str):
        return repr(value) if len(value) <= MOST_SHOWN else "a long text"
    if isinstance(value, Real) and not isinstance(value, bool):
        # Python refuses to write out whole numbers of 4,300 digits.
        long = isinstance(value, Integral) and abs(int(value)) >= 10**MOST_SHOWN
        return f"a number of more than {MOST_SHOWN} digits" if long else str(value)
    shown, kind = repr(value), type(value).__name__
    return f"{shown} ({kind})" if len(shown) <= MOST_SHOWN else f"a value of the type {kind}"
