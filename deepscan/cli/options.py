"""Options of commands: made from the fields of Structs, given on the command line or in a configuration file."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, TypeVar, get_origin

import msgspec
import typer
from typer.core import TyperCommand, TyperGroup

from deepscan.arguments import Option, OptionField, option_fields, path, paths, texts
from deepscan.errors import UsageError

# Of `deepscan scan`, in the order of its help; None for what is needed every day.
PANELS: Final = (None, "Inputs", "What is scored", "Speed", "Limits", "Results", "Going on")
# Options about the configuration file itself, which have no place in one.
NOT_IN_FILES: Final = frozenset(["config", "show-config"])
# The labels of `deepscan evaluate` and `deepscan calibrate`.
Labels: TypeAlias = Annotated[
    str | None,
    Option(
        "CSV file with path,label[,method,dataset,group,split], a folder with a known layout, or its JSON file.",
        metavar="LABELS",
        check=path,
    ),
]
C = TypeVar("C", bound=Callable[..., None])
Options: TypeAlias = type[msgspec.Struct]
Values: TypeAlias = dict[str, Any]  # by the keys of options


class _PlainSwitches:
    """Shows no `<bool>` beside options that take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            if getattr(each, "is_bool_flag", False):
                each.metavar = ""
        return params


class Command(_PlainSwitches, TyperCommand):
    """A command of `deepscan`."""


class Group(_PlainSwitches, TyperGroup):
    """A group of commands."""


def takes_options(
    *structs: Options, first: Sequence[str] = (), complete: Mapping[str, Callable[[str], list[str]]] | None = None
) -> Callable[[C], C]:
    """Return a decorator that adds the fields of Structs to a command's parameters, as options.

    The command receives them as keywords, of which `options_from` makes the Structs; None stands for an option that is
    not given. The help shows those `first`; `complete` has completions for the shell. Both go by the keys of options.
    """

    def decorated(command: C) -> C:
        own = inspect.signature(command, eval_str=True).parameters.values()
        fields = [each for struct in structs for each in option_fields(struct)]
        order = [*first, *(each.key for each in fields)]
        own_panels = dict.fromkeys(each.option.panel for each in fields if each.option.panel not in PANELS)
        panels = [None, *own_panels, *PANELS[1:]]
        fields.sort(key=lambda each: (panels.index(each.option.panel), order.index(each.key)))
        added = [made for each in fields for made in _parameters(each, (complete or {}).get(each.key))]
        parameters = [*(each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD), *added]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorated


def options_from(given: Mapping[str, Any], *structs: Options) -> list[Any]:
    """Return the Structs for what a command with `takes_options` and its `--config` file give; the command line wins.

    Raises:
        UsageError: a value is out of range, or the file cannot be read, names an unknown option, or gives a value of
            the wrong kind.
    """
    fields = {each.key: (struct, each) for struct in structs for each in option_fields(struct)}
    values: dict[Options, Values] = {struct: {} for struct in structs}
    for source, found in (given.get("config"), _file_values(given.get("config"), fields)), (None, _given(given)):
        for key, value in found.items():
            struct, each = fields[key]
            label = f"{source}: {key}" if source is not None else each.flag
            values[struct][each.name] = each.from_command_line(label, value)
    return [struct(**values[struct]) for struct in structs]


def toml_of(*options: msgspec.Struct) -> str:
    """Return options as a configuration file, panel by panel; those without a value are comments."""
    lines = []
    fields = [(each, getattr(struct, each.name)) for struct in options for each in option_fields(type(struct))]
    for panel in PANELS:
        lines += ["", f"# {panel}"] if panel is not None else []
        for each, value in fields:
            if each.option.panel == panel and each.key not in NOT_IN_FILES:
                shown = each.to_command_line(value)
                unset = f"# {each.key} =  # {each.option.shown_default or 'none'}"
                lines.append(unset if shown is None else f"{each.key} = {_toml(each.flag, shown)}")
    return "\n".join(lines) + "\n"


def _parameters(field: OptionField, complete: Callable[[str], list[str]] | None) -> Iterator[inspect.Parameter]:
    """Yield the parameters of one option; a switch that is off by default has a hidden one to take it back."""
    option, kind = field.option, field.kind
    if get_origin(kind) is not None and option.check in (texts, paths):
        kind = list[str]
    elif get_origin(kind) is Sequence:
        kind = str
    both = kind is bool and field.default is not False
    names = [f"{field.flag}/--no-{field.key}" if both else field.flag, *([option.short] if option.short else [])]
    yield _parameter(
        field.key,
        kind,
        typer.Option(
            *names,
            metavar=option.metavar,
            help=f"{option.help}{_default_in_words(field)}",
            rich_help_panel=option.panel,
            autocompletion=complete,
            show_default=False,
        ),
    )
    if kind is bool and not both:
        yield _parameter(f"no-{field.key}", bool, typer.Option(f"--no-{field.key}", hidden=True))


def _default_in_words(field: OptionField) -> str:
    if field.option.shown_default is not None:
        return f" Default: {field.option.shown_default}."
    if field.default is None or field.default is False or field.default == ():
        return ""
    if field.default is True:
        return " Default: on."
    return f" Default: {field.default:g}." if field.kind is float else f" Default: {field.default}."


def _parameter(key: str, kind: Any, option: Any) -> inspect.Parameter:
    name = key.replace("-", "_")
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _given(given: Mapping[str, Any]) -> Values:
    """Return what the command line gives, by the keys of options."""
    values = {name.replace("_", "-"): value for name, value in given.items() if value is not None and value != []}
    taken_back = [key for key in values if key.startswith("no-")]
    for key in taken_back:
        del values[key]
        values[key.removeprefix("no-")] = False
    return values


def _file_values(path: str | None, fields: Mapping[str, object]) -> Values:
    """Read a configuration file."""
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}): check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not valid TOML ({error}): see `deepscan scan --show-config`.") from error
    values: Values = {}
    for name, value in found.items():
        key = name.replace("_", "-")
        if key not in fields or key in NOT_IN_FILES:
            raise UsageError(f"{path}: {name} is not an option: see `deepscan scan --show-config` for all of them.")
        if isinstance(value, dict):
            raise UsageError(f"{path}: {name} is a table: give the option's value with =.")
        if key in values:
            raise UsageError(f"{path}: {name} is given twice, with - and with _: leave one out.")
        values[key] = value
    return values


def _toml(flag: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(flag, each) for each in value)}]"
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{flag} is not valid text, which TOML cannot hold: rename that file.") from error
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
