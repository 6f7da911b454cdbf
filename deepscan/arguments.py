"""Checks of the types and ranges of options and arguments, shared by the API and the command line.

Larger numbers would fail later and with a traceback: in messages between processes (64 bits), in FFmpeg and ONNX
Runtime (often 32 bits), or in a clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from deepscan.errors import UsageError

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
MOST_COUNT: Final = 2**31 - 1
MOST_SAMPLES: Final = 1_000_000  # frames or stretches picked out of one video: their times are kept in memory
MOST_BYTES: Final = 2**50  # a pebibyte; also the most pixels, frames and the like
MOST_SECONDS: Final = 1e9  # 31 years
MOST_THREADS: Final = 1024
MOST_SEED: Final = 2**63 - 1
MOST_SHOWN: Final = 40  # characters of a value in a message
MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Option:
    """Metadata of a field of an options Struct: `name: Annotated[int, Option(...)] = 3`.

    Attributes:
        help: sentence for the help and the documentation.
        check: takes the option's name and a value, and returns the value in Python's own type; raises UsageError. Of a
            field with a `Literal` type it is always `one_of`.
        panel: panel of the help; None for everyday options.
        metavar: placeholder for the value in the help.
        shown_default: description of the default for the help, where the value itself says too little.
        name: on the command line, where it is not the field's.
        short: one letter for the command line, with its hyphen.
        unit: in which the command line and configuration files give the value, as a multiple of the field's own.
        zero_is_none: whether 0 on the command line stands for None.
        bounds: keyword arguments of `check`.
    """

    help: str
    check: Callable[..., Any]
    panel: str | None = None
    metavar: str | None = None
    shown_default: str | None = None
    name: str | None = None
    short: str | None = None
    unit: int = 1
    zero_is_none: bool = False
    bounds: Mapping[str, Any] = field(default_factory=dict)

    def from_command_line(self, label: str, value: object) -> Any:
        """Return the value of the field for one in the command line's unit.

        Raises:
            UsageError: the value has the wrong type, or is out of range.
        """
        if self.zero_is_none and value == 0 and not isinstance(value, bool):
            return None
        if self.unit == 1:
            return self.check(label, value, **self.bounds)
        bounds = {name: -(-bound // self.unit) for name, bound in self.bounds.items()}
        return self.check(label, value, **bounds) * self.unit

    def to_command_line(self, value: Any) -> Any:
        """Return a value of the field in the command line's unit; None where nothing is given."""
        if value is None:
            return 0 if self.zero_is_none else None
        return value if self.unit == 1 else value // self.unit


@dataclass(frozen=True, slots=True)
class OptionField:
    """A field of an options Struct with its metadata.

    Attributes:
        name: of the field: the keyword for programs.
        kind: its type, without None.
        optional: whether it may be None.
        default: its default value.
        option: its metadata; `check` and `bounds` are complete.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The option on the command line: `--min-face`."""
        return f"--{self.key}"

    @property
    def key(self) -> str:
        """Its name in a configuration file: `min-face`."""
        return self.option.name or self.name.replace("_", "-")


@cache
def option_fields(options: type[msgspec.Struct]) -> tuple[OptionField, ...]:
    """Return the fields of a Struct that are annotated with an `Option`, in order."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for each in msgspec.structs.fields(options):
        hint = hints[each.name]
        if get_origin(hint) is not Annotated:
            continue
        outer, option = get_args(hint)
        kinds = [kind for kind in get_args(outer) if kind is not NoneType]
        optional = len(kinds) < len(get_args(outer)) and get_origin(outer) is not Literal
        kind = kinds[0] if optional else outer
        if get_origin(kind) is Literal:
            option = replace(option, check=one_of, bounds={"accepted": get_args(kind)})
        found.append(OptionField(each.name, kind, optional, each.default, option))
    return tuple(found)


def check_options(options: msgspec.Struct) -> None:
    """Check every annotated field of a frozen Struct, and convert it to Python's own type.

    Raises:
        UsageError: a value has the wrong type, or is out of range.
    """
    for each in option_fields(type(options)):
        value = getattr(options, each.name)
        if value is not None or not each.optional:
            label = each.name if each.kind is bool else each.flag
            value = each.option.check(label, value, **each.option.bounds)
            msgspec.structs.force_setattr(options, each.name, value)


def whole_number(option: str, value: object, *, least: int = 1, most: int = MOST_COUNT) -> int:
    """Return a whole number as an `int`.

    Args:
        option: its name, as on the command line.
        value: a whole number of any type, including NumPy's.
        least: the smallest value allowed.
        most: the largest value allowed.

    Raises:
        UsageError: the value is not a whole number, or is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise UsageError(f"{option} must be a whole number from {least} to {most:,}, not {_shown(value)}.")
    return int(value)


def real_number(option: str, value: object, *, least: float, most: float, above: bool = False) -> float:
    """Return a number as a `float`.

    Args:
        option: its name, as on the command line.
        value: a number of any type, including NumPy's.
        least: the smallest value allowed, in the unit of the option.
        most: the largest value allowed.
        above: whether `least` itself is refused.

    Raises:
        UsageError: the value is not a number, or is out of range.
    """
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else None
    if number is None or not least <= number <= most or (above and number == least):
        lowest = f"more than {least:g} and at most" if above else f"from {least:g} to"
        raise UsageError(f"{option} must be a number {lowest} {most:,g}, not {_shown(value)}.")
    return float(number)


def probability(option: str, value: object) -> float:
    """Return a probability.

    Raises:
        UsageError: the value is not a number from 0 to 1.
    """
    return real_number(option, value, least=0, most=1)


def seconds(option: str, value: object) -> float:
    """Return a duration in seconds.

    Raises:
        UsageError: the value is not above 0, or is longer than a process can wait.
    """
    return real_number(option, value, least=0, most=MOST_SECONDS, above=True)


def truth(option: str, value: object) -> bool:
    """Return True or False.

    Raises:
        UsageError: the value is neither; a word such as "no" would count as true.
    """
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's
        raise UsageError(f"{option} must be True or False, not {_shown(value)}.")
    return bool(value)


def one_of(option: str, value: object, *, accepted: Sequence[str]) -> str:
    """Return one of the accepted words.

    Raises:
        UsageError: the value is not one of them.
    """
    if not isinstance(value, str) or value not in accepted:
        raise UsageError(f"{option} {_shown(value)} is not known: use one of {', '.join(accepted)}.")
    return value


def text(option: str, value: object) -> str:
    """Return a text.

    Raises:
        UsageError: the value is not a text.
    """
    if not isinstance(value, str):
        raise UsageError(f"{option} must be text, not {_shown(value)}.")
    return value


def texts(option: str, value: object) -> tuple[str, ...]:
    """Return several texts; a single one needs no list.

    Raises:
        UsageError: one of them is not a text.
    """
    return tuple(text(option, each) for each in _each(option, value, (str, bytes), "text, or a list of it"))


def path(option: str, value: object) -> str:
    """Return a path as text, with undecodable bytes as surrogate escapes.

    Raises:
        UsageError: the value is not a path.
    """
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise UsageError(f"{option} must be a path, not {_shown(value)}.")
    return os.fsdecode(value)


def paths(option: str, value: object) -> tuple[str, ...]:
    """Return several paths; a single one needs no list.

    Raises:
        UsageError: one of them is not a path.
    """
    singly = (str, bytes, os.PathLike)
    return tuple(path(option, each) for each in _each(option, value, singly, "a path, or a list of paths"))


def detectors(option: str, value: object) -> tuple[str, ...]:
    """Return the names of detectors, given as one text with commas or as several texts or paths.

    Raises:
        UsageError: the value is neither.
    """
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(","))
    what = "the name of a detector, or a list of names"
    return tuple(path(option, each) for each in _each(option, value, (bytes, os.PathLike), what))


def _each(option: str, value: object, singly: tuple[type, ...], what: str) -> Iterable[object]:
    if isinstance(value, singly):
        return (value,)
    if not isinstance(value, Iterable):
        raise UsageError(f"{option} must be {what}, not {_shown(value)}.")
    return value


def _shown(value: Any) -> str:
    """Return a value as text for a message; of a long one, only what it is."""
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
