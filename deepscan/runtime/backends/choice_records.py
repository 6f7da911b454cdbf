"""Which backend was measured to be the fastest for an artifact: kept between runs, for programs and for people.

<data folder>/choices/<hash of all that the measurement depends on>.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from deepscan.options import Arithmetic, BackendName
from deepscan.runtime.system.files import PRIVATE, atomic_write, data_folder
from deepscan.runtime.system.machine import Environment

if TYPE_CHECKING:
    from pathlib import Path


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found out about one candidate.

    Attributes:
        backend, precision: the candidate.
        left_out: why it could not be chosen, for people; empty where it could.
        open_seconds: how long it took to load the artifact; None where that failed.
        max_difference, mean_difference: of its scores from those of the reference; None where there were none, or one
            was no number.
        seconds_per_item: median over the rounds; None where it was left out before them.
        rounds: seconds per item in each round.
    """

    backend: BackendName
    precision: Arithmetic
    left_out: str
    open_seconds: float | None
    max_difference: float | None
    mean_difference: float | None
    seconds_per_item: float | None
    rounds: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured, where, and what is taken because of it.

    Attributes:
        schema: version of this record's format.
        file, sha256: of the artifact.
        device, threads: where the candidates ran.
        machine: what the figures depend on.
        items, items_sha256: how many crops or clips were scored, and the hash of their pixels.
        reference: whose scores are the right ones, for people.
        measured: when, in seconds since 1970.
        backend, precision: the fastest.
        reason: one sentence for people.
        trials: all candidates.
    """

    schema: Literal[1] = 1
    file: str
    sha256: str
    device: str
    threads: int
    machine: Environment
    items: int
    items_sha256: str
    reference: str
    measured: float
    backend: BackendName
    precision: Arithmetic
    reason: str
    trials: tuple[Trial, ...]


def choice_path(key: str) -> Path:
    """Return the file of a choice; it may not exist yet."""
    return data_folder() / "choices" / f"{key}.json"


def recall(key: str) -> Choice | None:
    """Return a choice that was remembered; None where there is none that can be read."""
    try:
        return msgspec.json.decode(choice_path(key).read_bytes(), type=Choice)
    except (OSError, msgspec.DecodeError):
        return None


def remember(key: str, choice: Choice) -> None:
    """Keep a choice, in a folder that only its owner may read.

    Raises:
        OSError: it cannot be written.
    """
    path = choice_path(key)
    path.parent.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    path.parent.mkdir(mode=PRIVATE, exist_ok=True)
    atomic_write({path: [msgspec.json.format(msgspec.json.encode(choice), indent=2) + b"\n"]})
