"""What turns a float32 graph into one of lower precision, and what tells it how far it may go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import onnx

if TYPE_CHECKING:
    from deepscan.export.parity.parity import Parity

# Runs a graph over real crops and compares it with the float32 original.
Judge: TypeAlias = Callable[[onnx.ModelProto], "Parity"]


@dataclass(frozen=True, eq=False)
class ConversionResult:
    """A graph of lower precision.

    Attributes:
        model: takes and gives what the artifact contract says.
        notes: for each node that was left in higher precision, by its name, why.
        summary: one line for people.
        stand_in: what ONNX Runtime must run on a CPU to compute what `model` computes on a GPU; None: `model` itself.
    """

    model: onnx.ModelProto
    notes: Mapping[str, str]
    summary: str
    stand_in: onnx.ModelProto | None = None
