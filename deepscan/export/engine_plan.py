"""Calls of TensorRT that build a plan, its word for a built engine, from an artifact."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.artifacts import Artifact
from deepscan.runtime.backends.tensorrt.engine_store import BatchProfile, Target
from deepscan.runtime.backends.tensorrt.tensorrt_packages import Package, cleaned, distinct_texts

log = logging.getLogger(__name__)

STEPS_WORTH_COUNTING: Final = 10
TENTH: Final = 10  # per cent


@dataclass(frozen=True, slots=True, eq=False)
class PlanRequest:
    """Request for a build.

    Attributes:
        artifact, package, target: what is built, by which package, for which GPU.
        batches: batch sizes of the engine.
        workspace_bytes: memory that a layer may use besides its inputs and outputs. TensorRT-RTX makes one layer of a
            whole network, so there it must hold the weights and all intermediate tensors.
        timings: TensorRT's timing cache of earlier builds, or empty.
    """

    artifact: Artifact
    package: Package
    target: Target
    batches: BatchProfile
    workspace_bytes: int
    timings: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A built engine: opaque bytes for TensorRT, warnings, and the timing cache for the next build (not for RTX)."""

    content: bytes
    warnings: tuple[str, ...]
    timings: bytes


def built_plan(request: PlanRequest) -> Plan:
    """Build in another thread, so that Ctrl-C interrupts this one, where TensorRT cannot swallow it.

    Raises:
        ModelError: the package cannot parse the graph, or finds no way to run it on that GPU.
    """
    monitor = progress_monitor(request.package.module)
    with ThreadPoolExecutor(1, "building") as executor:
        build = executor.submit(_built, request, monitor)
        try:
            return build.result()
        finally:
            monitor.stopped = True


def _built(request: PlanRequest, monitor: Any) -> Plan:
    package, module = request.package, request.package.module
    with package.lock:
        package.messages.clear()
        builder = module.Builder(package.logger)
        # TensorRT 11 and TensorRT-RTX have only strongly typed networks, and ignore the flag.
        network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        _parse(network, request)
        config = _config(builder, request)
        config.progress_monitor = monitor
        # Referenced until the engine is built, because TensorRT keeps no reference.
        times = _attached_times(config, request.timings) if package.flavor == "tensorrt" else None
        content = builder.build_serialized_network(network, config)
        without_gpu = request.target.gpu is None
        if content is None:
            errors = distinct_texts(package.messages, errors=True, without_gpu=without_gpu) or ("it gives no reason",)
            raise ModelError(
                f"{package.title} could not build {request.artifact.manifest.file} for compute capability "
                f"{request.target.compute_capability} and batches of up to {request.batches.largest} within "
                f"{request.workspace_bytes >> 20} MiB ({errors[0]}): use a smaller --max-batch, or another backend."
            )
        return Plan(
            content=bytes(content),
            warnings=distinct_texts(package.messages, errors=False, without_gpu=without_gpu),
            timings=b"" if times is None else bytes(config.get_timing_cache().serialize()),
        )


def _parse(network: Any, request: PlanRequest) -> None:
    """Read the graph into the network."""
    package, manifest = request.package, request.artifact.manifest
    parser = package.module.OnnxParser(network, package.logger)
    if not parser.parse(request.artifact.model):
        first, more = parser.get_error(0), parser.num_errors - 1
        node = f"{first.node_name() or first.node()} ({first.node_operator()}){f' and {more} more' if more else ''}"
        reason = cleaned(first.desc(), without_gpu=request.target.gpu is None)
        raise ModelError(
            f"{package.title} does not take node {node} of {manifest.file} ({reason}): export the detector again, or "
            "use another backend."
        )


def _config(builder: Any, request: PlanRequest) -> Any:
    """Return the build configuration."""
    package, module = request.package, request.package.module
    spec, batches = request.artifact.manifest.spec, request.batches
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shapes = [(size, *spec.item_shape) for size in (batches.smallest, batches.tuned, batches.largest)]
    profile.set_shape(spec.input_name, *shapes)
    config.add_optimization_profile(profile)
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    # With TF32, float32 layers would round their factors to ten bits.
    config.clear_flag(module.BuilderFlag.TF32)
    if package.flavor == "tensorrt-rtx":
        # CUDA graphs can be captured only if nothing is allocated while the engine runs.
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = 1
        name = f"SM{request.target.compute_capability.replace('.', '')}"
        config.set_compute_capability(module.ComputeCapability.__members__[name], 0)
    return config


def _attached_times(config: Any, kept: bytes) -> Any:
    """Attach the timing cache of earlier builds, or a new one if TensorRT refuses it, as for another GPU or version."""
    times = config.create_timing_cache(kept)
    if times is None or not config.set_timing_cache(times, False):
        times = config.create_timing_cache(b"")
        config.set_timing_cache(times, False)
    return times


def progress_monitor(module: Any) -> Any:
    """Return an IProgressMonitor that logs phases, and tenths of long ones; setting `stopped` stops the build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """Progress monitor that TensorRT calls from several threads."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:  # noqa: ARG002
            self._steps[phase] = steps
            log.info("%s ...", phase)

        def step_complete(self, phase: str, step: int) -> bool:
            steps = self._steps.get(phase, 0)
            before, now = (TENTH * done // steps * TENTH if steps else 0 for done in (step, step + 1))
            if steps >= STEPS_WORTH_COUNTING and now > before:
                log.info("%s: %d %%", phase, now)
            return not self.stopped

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()
