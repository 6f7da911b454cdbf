"""In which form a clip detector is exported: with its 3-D convolutions, or lowered to 2-D ones.

Which is faster depends on the runtime and the machine, so `auto` measures both where the export runs.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx
from torch import nn

from deepscan.errors import UsageError
from deepscan.export.lowering import can_be_lowered, lowered
from deepscan.export.onnx_from_module import onnx_from_module
from deepscan.export.wrappers import ArtefactGraph
from deepscan.runtime.artefacts import Form
from deepscan.runtime.machine import cpu_count
from deepscan.runtime.sessions import Session
from deepscan.spec import DetectorSpec

FormChoice = Literal["3d", "2d", "auto"]
ROUNDS: Final = 3


@dataclass(frozen=True, eq=False)
class Exported:
    """A graph, and the form it is in.

    Attributes:
        model: takes and gives what the artefact contract says.
        form: None where the network has one form only.
        reason: why this form, for people; empty where there was no choice.
    """

    model: onnx.ModelProto
    form: Form | None
    reason: str


def exported(network: nn.Module, spec: DetectorSpec, choice: FormChoice) -> Exported:
    """Export a network in the form that is asked for, or in the one that is faster here.

    Args:
        network: with its weights.
        spec: of the detector.
        choice: `auto` measures both forms with ONNX Runtime on the processors of this machine.

    Raises:
        UsageError: the network has no 3-D convolutions, and one of the forms was asked for.
        ModelError: the graph would not be valid.
    """
    if not can_be_lowered(network):
        if choice != "auto":
            raise UsageError(f"{spec.name} has no 3-D convolutions: leave out --form.")
        return Exported(_graph(network, spec), None, "")
    if choice == "3d":
        return Exported(_graph(network, spec), "3d", "it was asked for")
    flat = _graph(lowered(network, frames=spec.frames), spec)
    if choice == "2d":
        return Exported(flat, "2d", "it was asked for")
    graphs: dict[Form, onnx.ModelProto] = {"3d": _graph(network, spec), "2d": flat}
    seconds = _seconds_per_clip(graphs, spec)
    best = min(seconds, key=lambda form: seconds[form])
    figures = ", ".join(f"{form} {value:.3f} s per clip" for form, value in seconds.items())
    return Exported(graphs[best], best, f"{figures} with ONNX Runtime on {cpu_count()} processors")


def _graph(network: nn.Module, spec: DetectorSpec) -> onnx.ModelProto:
    return onnx_from_module(ArtefactGraph(network, spec), spec.item_shape, input_name=spec.input_name)


def _seconds_per_clip(graphs: dict[Form, onnx.ModelProto], spec: DetectorSpec) -> dict[Form, float]:
    """Time the graphs in turns, after one run each to warm up; return medians."""
    clip = np.random.default_rng(0).integers(0, 256, (1, *spec.item_shape), dtype=np.uint8)
    sessions = {
        form: Session(model.SerializeToString(), source=f"{spec.name}, {form}", device="cpu", threads=cpu_count())
        for form, model in graphs.items()
    }
    taken: dict[Form, list[float]] = {form: [] for form in graphs}
    for turn in range(ROUNDS + 1):
        for form, session in sessions.items():
            started = time.perf_counter()
            session.run(["logit"], {spec.input_name: clip})
            if turn:
                taken[form].append(time.perf_counter() - started)
    return {form: statistics.median(values) for form, values in taken.items()}
