from __future__ import annotations

import pytest

from deepscan import errors
from deepscan.errors import (
    DeepscanError,
    DeviceMemoryError,
    InputError,
    MachineError,
    ModelError,
    OutputError,
    OverLimit,
    UnreachableInput,
    UnreadableInput,
    UnsupportedInput,
    UsageError,
)
from deepscan.export.parity.parity_report import ParityMiss

EXIT_CODES = {
    InputError: 1,
    UnreadableInput: 1,
    UnreachableInput: 1,
    UnsupportedInput: 1,
    OverLimit: 1,
    UsageError: 2,
    OutputError: 3,
    ModelError: 3,
    ParityMiss: 3,
    MachineError: 3,
    DeviceMemoryError: 3,
}


def everything_below(kind: type[DeepscanError]) -> set[type[DeepscanError]]:
    return set(kind.__subclasses__()).union(*(everything_below(child) for child in kind.__subclasses__()))


def test_every_error_has_its_documented_exit_code() -> None:
    assert {kind: kind.exit_code for kind in everything_below(DeepscanError)} == EXIT_CODES


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (UnreadableInput, "unreadable"),
        (UnreachableInput, "unreadable"),
        (UnsupportedInput, "unsupported"),
        (OverLimit, "over_limit"),
    ],
)
def test_only_errors_about_an_input_have_a_status(kind: type[InputError], status: str) -> None:
    assert kind.status == status
    assert not any(hasattr(other, "status") for other in EXIT_CODES if not issubclass(other, InputError))


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    assert all(f"─ {kind.__name__} " in errors.__doc__ for kind in EXIT_CODES)
