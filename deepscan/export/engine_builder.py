"""TensorRT engines from artifacts, built with either of its packages into the store.

The graph decides the precision, because networks are strongly typed. An engine takes batches from 1 to the largest, and
is tuned for the largest: batches are full whenever a scan waits for inference.

TensorRT times kernels, so it builds on the GPU that will run them, and keeps the times for later builds. TensorRT-RTX
builds without a GPU for any architecture it supports, and times nothing ("Timing Cache Migration" in its
documentation).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import re
import time
from pathlib import Path
from typing import Final

import numpy as np
from onnx import GraphProto, TensorProto, numpy_helper

from deepscan.errors import MachineError, ModelError, OutputError, UsageError
from deepscan.export.engine_plan import PlanRequest, built_plan
from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
from deepscan.runtime.backends.artifact_graph import checked_graph
from deepscan.runtime.backends.tensorrt.engine_store import (
    BatchProfile,
    Engine,
    EngineManifest,
    Flavor,
    Target,
    engine_folder,
    engines_folder,
    find_engine,
    locked,
    make_private,
    read_plan,
    read_sealed,
    rebuilding,
    refuse_open,
    save_engine,
    sweep,
    timings_path,
    write_sealed,
)
from deepscan.runtime.backends.tensorrt.tensorrt_packages import Package, load_package, present_target

log = logging.getLogger(__name__)

QUANTIZERS: Final = ("QuantizeLinear", "DequantizeLinear")


def compute_capabilities(text: str) -> tuple[str, ...]:
    """Parse a list such as `86,89,120` or `8.6,12.0`, the value of --sm.

    Raises:
        UsageError: it is not such a list.
    """
    found = [re.fullmatch(r"(\d+)\.?(\d)", part.strip()) for part in text.split(",")]
    known = [".".join(match.groups()) for match in found if match]
    if len(known) < len(found):
        raise UsageError(f"--sm {text} is not a list of compute capabilities: write it like 86,89,120.")
    return tuple(dict.fromkeys(known))


def build_engine(
    artifact: Artifact,
    *,
    flavor: Flavor,
    compute_capability: str | None,
    max_batch: int,
    workspace_bytes: int,
) -> Engine:
    """Build the engine of an artifact into the store, unless it is there already.

    If another process is building the same engine, this waits and returns that one.

    Args:
        artifact: of any precision; int8 must not have zero points.
        flavor: package that builds and will run the engine.
        compute_capability: of the GPU that will run it, such as 8.6; None for the GPU in this machine.
        max_batch: largest batch.
        workspace_bytes: see `PlanRequest`. TensorRT-RTX needs about 0.3 GB per clip of FTCN in half precision, and
            twice that in float32.

    Raises:
        UsageError: the package cannot build for that GPU, or the batch is less than 1.
        MachineError: the package, or a GPU that it needs, is missing.
        ModelError: the package cannot build the graph, or the store is open to other users.
        OutputError: the engine cannot be written; an earlier one stays.
    """
    if max_batch < 1:
        raise UsageError(f"No engine can be built for batches of at most {max_batch}: give at least 1.")
    package = load_package(flavor)
    target = resolve_target(package, compute_capability, present_target())
    graph = checked_graph(artifact).graph
    if artifact.manifest.precision == "int8":
        _refuse_zero_points(graph, artifact.manifest)
    request = PlanRequest(
        artifact, package, target, BatchProfile(smallest=1, tuned=max_batch, largest=max_batch), workspace_bytes
    )
    folder = engine_folder(artifact.manifest, flavor, target.compute_capability)
    try:
        for private in (engines_folder(), folder):
            make_private(private)
            refuse_open(private, remedy=rebuilding(artifact.manifest, flavor))
        with locked(folder):
            sweep(folder)
            there = _already_built(request)
            if there is None:
                return _build(request, folder)
            log.info("The engine in %s is up to date.", folder)
            return there
    except OSError as error:
        raise OutputError(
            f"The engine cannot be kept in {folder} ({error.strerror}): free some space there, or set DEEPSCAN_HOME to "
            "another folder."
        ) from error


def resolve_target(package: Package, compute_capability: str | None, present: Target | None) -> Target:
    """Return the GPU to build for: the one `present` in this machine, or with TensorRT-RTX that of another machine.

    Raises:
        UsageError: the package cannot build for that GPU.
        MachineError: a GPU is needed, and there is none.
    """
    if package.flavor == "tensorrt":
        if present is None:
            raise MachineError(
                "TensorRT builds an engine on the GPU that will run it, and there is none here: run this on that "
                "machine, or use --engine tensorrt-rtx."
            )
        if compute_capability not in (None, present.compute_capability):
            raise UsageError(
                f"TensorRT builds for the GPU in this machine, which has compute capability "
                f"{present.compute_capability}, not {compute_capability}: leave out --sm, or use --engine tensorrt-rtx."
            )
        return present
    if compute_capability is None and present is None:
        raise MachineError("There is no NVIDIA GPU here to build for: name one with --sm, as in --sm 86.")
    here = present is not None and compute_capability in (None, present.compute_capability)
    target = present if here and present is not None else Target(compute_capability=str(compute_capability))
    if target.compute_capability not in package.capabilities():
        raise UsageError(
            f"{package.title} builds for compute capability {', '.join(package.capabilities())}, not for "
            f"{target.compute_capability}: use --engine tensorrt on that machine."
        )
    return target


def _refuse_zero_points(graph: GraphProto, manifest: Manifest) -> None:
    """Refuse quantization that is not symmetric around zero.

    TensorRT's parser refuses zero points other than 0, and takes unsigned ones for signed, which would cut off half of
    the range.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in QUANTIZERS:
            continue
        point = values.get(node.input[2]) if len(node.input) > 2 else None
        if point is None or point.data_type != TensorProto.INT8 or np.any(numpy_helper.to_array(point)):
            raise ModelError(
                f"{manifest.file} is quantized with zero points ({node.name or node.output[0]}), and TensorRT takes "
                "symmetric int8 only: export it again with both --int8 and --engine."
            )


def _already_built(request: PlanRequest) -> Engine | None:
    """Return the engine in the store, if it is intact and matches the request."""
    package, manifest = request.package, request.artifact.manifest
    try:
        engine = find_engine(manifest, package.flavor, version=package.version, target=request.target)
        read_plan(engine, remedy=rebuilding(manifest, package.flavor))
    except (MachineError, ModelError):
        return None
    asked = (request.batches, request.workspace_bytes)
    return engine if (engine.manifest.batches, engine.manifest.workspace_bytes) == asked else None


def _build(request: PlanRequest, folder: Path) -> Engine:
    """Build into a locked folder."""
    package, manifest = request.package, request.artifact.manifest
    started = time.time()
    timings = timings_path(package.version, request.target)
    if package.flavor == "tensorrt":
        request = dataclasses.replace(request, timings=read_sealed(timings) or b"")
    plan = built_plan(request)
    record = EngineManifest(
        detector=manifest.spec.name,
        precision=manifest.precision,
        onnx_sha256=manifest.sha256,
        weights_sha256=manifest.weights_sha256,
        flavor=package.flavor,
        version=package.version,
        target=request.target,
        batches=request.batches,
        workspace_bytes=request.workspace_bytes,
        sha256=hashlib.sha256(plan.content).hexdigest(),
        size_bytes=len(plan.content),
        built=started,
        build_seconds=time.time() - started,
        warnings=plan.warnings,
    )
    engine = Engine(record, folder)
    save_engine(engine, plan.content)
    if plan.timings:
        with contextlib.suppress(OSError):  # they only save time
            write_sealed(timings, plan.timings)
    return engine
