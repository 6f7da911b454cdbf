"""Form of an exported clip detector: with its 3-D convolutions, or lowered to 2-D ones.

The faster one depends on the runtime and the machine, so `auto` measures both with every backend of this machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import onnx
from torch import nn

from deepscan.errors import UsageError
from deepscan.export.onnx_from_module import onnx_from_module
from deepscan.export.packing import WeightsOrigin, packed
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.models.networks.lowering import can_be_lowered, lowered
from deepscan.runtime.artifacts.artifacts import Form
from deepscan.runtime.backends.contract import Backend
from deepscan.runtime.backends.devices import resolve_device
from deepscan.runtime.backends.selection import auto_candidates, open_backend
from deepscan.runtime.system.machine import cpu_count
from deepscan.spec import DetectorSpec
from deepscan.wording import counted

FormChoice = Literal["3d", "2d", "auto"]
ROUNDS: Final = 3


@dataclass(frozen=True, eq=False)
class Exported:
    """A graph that keeps the artifact contract; `form` is None, and `reason` empty, if the network has only one."""

    model: onnx.ModelProto
    form: Form | None
    reason: str


def exported(network: nn.Module, spec: DetectorSpec, choice: FormChoice, *, for_engine: bool = False) -> Exported:
    """Export a network in the given form, or in the faster one.

    `auto` measures both forms in float32 and, if available, bfloat16. There is nothing to measure yet if a TensorRT
    engine will be built from it: then `auto` is 2-D.

    Raises:
        UsageError: a form was given, and the network has no 3-D convolutions.
        ModelError: the graph would not be valid.
    """
    if not can_be_lowered(network):
        refuse_form(network, spec.name, choice)
        return Exported(graph_of(network, spec), None, "")
    if choice == "3d":
        return Exported(graph_of(network, spec), "3d", "it was asked for")
    flat = graph_of(lowered(network, frames=spec.frames), spec)
    if choice == "2d":
        return Exported(flat, "2d", "it was asked for")
    if for_engine:
        return Exported(flat, "2d", "engines have fast 2-D kernels for every precision; not measured")
    graphs: dict[Form, onnx.ModelProto] = {"3d": graph_of(network, spec), "2d": flat}
    seconds = _seconds_per_clip(graphs, spec)
    best = min(seconds, key=lambda way: seconds[way])[0]
    figures = ", ".join(f"{form} {value:.3f} s per clip on {name}" for (form, name), value in seconds.items())
    return Exported(graphs[best], best, f"{figures}, {counted(cpu_count(), 'processor')}")


def refuse_form(network: nn.Module, name: str, choice: FormChoice) -> None:
    """Raise a UsageError if a form is given for a network that has no 3-D convolutions."""
    if choice != "auto" and not can_be_lowered(network):
        raise UsageError(f"{name} has no 3-D convolutions: leave out --form.")


def graph_of(network: nn.Module, spec: DetectorSpec) -> onnx.ModelProto:
    """Trace a network unchanged, inside the wrapper of the artifact contract."""
    return onnx_from_module(ArtifactGraph(network, spec), spec.item_shape, input_name=spec.input_name)


def _seconds_per_clip(graphs: Mapping[Form, onnx.ModelProto], spec: DetectorSpec) -> dict[tuple[Form, str], float]:
    """Return the median time of each graph on each backend, run in turns after one warm-up each."""
    clip = np.random.default_rng(0).integers(0, 256, (1, *spec.item_shape), dtype=np.uint8)
    device = resolve_device("auto")
    backends: dict[tuple[Form, str], Backend] = {}
    for form, model in graphs.items():
        artifact = packed(model, spec, WeightsOrigin("", ""), form=form)
        for candidate in auto_candidates(artifact.manifest, device):
            backend = open_backend(candidate, artifact, device=device, threads=cpu_count())
            backends[form, f"{backend.name} {backend.precision}"] = backend
    taken: dict[tuple[Form, str], list[float]] = {way: [] for way in backends}
    for turn in range(ROUNDS + 1):
        for way, backend in backends.items():
            started = time.perf_counter()
            backend.logits(clip)
            if turn:
                taken[way].append(time.perf_counter() - started)
    for backend in backends.values():
        backend.close()
    return {way: statistics.median(values) for way, values in taken.items()}
