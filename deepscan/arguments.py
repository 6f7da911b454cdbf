"""Options as fields of Structs, and checks of their types and ranges, shared by the API and the command line.

A check takes the name of an option, as on the command line, and a value of any type, including NumPy's. It returns the
value in Python's own type, or raises UsageError.
Larger numbers would fail later and with a traceback: in messages between processes (64 bits), in FFmpeg and ONNX
Runtime (often 32 bits), or in a clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from deepscan.errors import UsageError
from deepscan.naming import KEYWORDS, VALUES

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
MOST_COUNT: Final = 2**31 - 1
MOST_SAMPLES: Final = 1_000_000  # frames or stretches picked out of one video: their times are kept in memory
MOST_BYTES: Final = 2**50  # a pebibyte; also the most pixels, frames and the like
MOST_SECONDS: Final = 1e9  # 31 years
MOST_THREADS: Final = 1024
PROBABILITY: Final = {"least": 0, "most": 1}  # bounds of an option
SEEDS: Final = {"least": 0, "most": 2**63 - 1}
MOST_SHOWN: Final = 40  # characters of a value in a message
MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Option:
    """Metadata of a field of an options Struct: `name: Annotated[int, Option(...)] = 3`.

    Attributes:
        help: sentence for the help and the documentation.
        panel: panel of the help; None for everyday options.
        metavar: placeholder for the value in the help.
        shown_default: description of the default for the help, where the value itself says too little.
        check: check of the value; by default, the one for the type of the field.
        bounds: keyword arguments of `check`.
        name: on the command line, where it is not the field's.
        short: one letter for the command line, with its hyphen.
        unit: in which the command line and configuration files give the value, as a multiple of the field's own.
        zero_is_none: whether 0 on the command line stands for None.
    """

    help: str
    panel: str | None = None
    metavar: str | None = None
    shown_default: str | None = None
    check: Callable[..., Any] | None = None
    bounds: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    short: str | None = None
    unit: int = 1
    zero_is_none: bool = False


@dataclass(frozen=True, slots=True)
class OptionField:
    """A field of an options Struct with its metadata.

    Attributes:
        name: of the field: the keyword for programs.
        kind: its type, without None.
        optional: whether it may be None.
        default: its default value.
        option: its metadata.
        check: check of its value.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    option: Option
    check: Callable[..., Any]

    @property
    def flag(self) -> str:
        """The option on the command line: `--min-face`."""
        return f"--{self.key}"

    @property
    def key(self) -> str:
        """Its name in a configuration file: `min-face`."""
        return self.option.name or self.name.replace("_", "-")

    def from_command_line(self, label: str, value: object) -> Any:
        """Check a value in the command line's unit, and return that of the field."""
        unit, bounds = self.option.unit, self.option.bounds
        if self.option.zero_is_none and value == 0 and not isinstance(value, bool):
            return None
        if unit == 1:
            return self.check(label, value, **bounds)
        return self.check(label, value, **{name: -(-bound // unit) for name, bound in bounds.items()}) * unit

    def to_command_line(self, value: Any) -> Any:
        """Return a value of the field in the command line's unit; None where nothing is given."""
        if value is None:
            return 0 if self.option.zero_is_none else None
        return value if self.option.unit == 1 else value // self.option.unit


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
        is_choice = get_origin(kind) is Literal
        check = partial(one_of, accepted=get_args(kind)) if is_choice else option.check or CHECKS[kind]
        found.append(OptionField(each.name, kind, optional, each.default, option, check))
    return tuple(found)


def rename_in_messages(options: type[msgspec.Struct], prefix: str = "") -> None:
    """Let messages for programs name the options of a Struct by their keywords; see `deepscan.naming`."""
    for each in option_fields(options):
        name = f"{prefix}{each.name}"
        KEYWORDS[each.flag] = f"{name}=True" if each.default is False else name
        if each.default is True:
            KEYWORDS[f"--no-{each.key}"] = f"{name}=False"
        if get_origin(each.kind) is Literal:
            VALUES.update(get_args(each.kind))


def check_options(options: msgspec.Struct) -> None:
    """Check every annotated field of a frozen Struct, and convert it to Python's own type."""
    for each in option_fields(type(options)):
        value = getattr(options, each.name)
        if value is not None or not each.optional:
            label = each.name if each.kind is bool else each.flag
            value = each.check(label, value, **each.option.bounds)
            msgspec.structs.force_setattr(options, each.name, value)


def whole_number(option: str, value: object, *, least: int = 1, most: int = MOST_COUNT) -> int:
    """Return a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise UsageError(f"{option} must be a whole number from {least} to {most:,}, not {_shown(value)}.")
    return int(value)


def real_number(option: str, value: object, *, least: float, most: float, above: bool = False) -> float:
    """Return a number from `least`, or with `above` from more than that, to `most`."""
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else None
    if number is None or not least <= number <= most or (above and number == least):
        lowest = f"more than {least:g} and at most" if above else f"from {least:g} to"
        raise UsageError(f"{option} must be a number {lowest} {most:,g}, not {_shown(value)}.")
    return float(number)


def truth(option: str, value: object) -> bool:
    """Return True or False; any other value is refused, as a word such as "no" would count as true."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's
        raise UsageError(f"{option} must be True or False, not {_shown(value)}.")
    return bool(value)


def one_of(option: str, value: object, *, accepted: Sequence[str]) -> str:
    """Return one of the accepted words."""
    if not isinstance(value, str) or value not in accepted:
        raise UsageError(f"{option} {_shown(value)} is not known: use one of {', '.join(accepted)}.")
    return value


def text(option: str, value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise UsageError(f"{option} must be text, not {_shown(value)}.")
    return value


def texts(option: str, value: object) -> tuple[str, ...]:
    """Return several texts; a single one needs no list."""
    return tuple(text(option, each) for each in _each(option, value, (str, bytes), "text, or a list of it"))


def path(option: str, value: object) -> str:
    """Return a path as text, with undecodable bytes as surrogate escapes."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise UsageError(f"{option} must be a path, not {_shown(value)}.")
    return os.fsdecode(value)


def paths(option: str, value: object) -> tuple[str, ...]:
    """Return several paths; a single one needs no list."""
    singly = (str, bytes, os.PathLike)
    return tuple(path(option, each) for each in _each(option, value, singly, "a path, or a list of paths"))


def detectors(option: str, value: object) -> tuple[str, ...]:
    """Return the names of detectors, given as one text with commas or as several texts or paths."""
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


CHECKS: Final[Mapping[type, Callable[..., Any]]] = {bool: truth, int: whole_number, float: real_number, str: text}
