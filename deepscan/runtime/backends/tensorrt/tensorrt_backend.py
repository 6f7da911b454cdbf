"""Backend for TensorRT and TensorRT-RTX: runs the engine that was built from an artifact for this GPU.

Each batch size has its own context, which keeps its shape. Contexts never run at the same time, so they share scratch
memory.

TensorRT-RTX compiles kernels on this machine when a batch size first runs, which happens on loading. They are stored
beside the engine; TensorRT-RTX itself checks whether they fit GPU and driver.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepscan.errors import DeepscanError, MachineError, ModelError
from deepscan.installing import install_extra
from deepscan.runtime.backends.batch_input import BatchInput, first_gpu
from deepscan.runtime.backends.batching import batch_sizes, size_for
from deepscan.runtime.backends.contract import LOGIT, finite
from deepscan.runtime.backends.tensorrt.engine_store import (
    Engine,
    find_engine,
    read_plan,
    read_sealed,
    rebuilding,
    write_sealed,
)
from deepscan.runtime.backends.tensorrt.tensorrt_packages import (
    Package,
    distinct_texts,
    installed_flavors,
    load_package,
    package_version,
    present_target,
)
from deepscan.runtime.cuda.cuda_runtime import cuda_is_installed
from deepscan.spec import DetectorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.backends.tensorrt.engine_store import Target
    from deepscan.runtime.cuda.cuda_device import CudaQueue
    from deepscan.runtime.system.machine import Device


class LoadedEngine:
    """An engine on the GPU.

    Args:
        package: package that built the engine.
        engine: engine in the store.
        spec: spec of its detector.
        queue: queue to run on.
        remedy: end of error messages.

    Raises:
        ModelError: the plan does not match its manifest, or TensorRT refuses it.
        MachineError: it cannot run on this GPU or with this driver.
    """

    def __init__(self, package: Package, engine: Engine, spec: DetectorSpec, queue: CudaQueue, *, remedy: str) -> None:
        plan = read_plan(engine, remedy=remedy)
        self._package, self._module, self._engine = package, package.module, engine
        self._queue, self._spec, self._remedy = queue, spec, remedy
        package.messages.clear()
        runtime = self._module.Runtime(package.logger)
        if package.flavor == "tensorrt-rtx":
            self._refuse_invalid(*runtime.get_engine_validity(plan))
        loaded = runtime.deserialize_cuda_engine(plan)
        if loaded is None:
            raise ModelError(f"{package.title} does not take {engine.plan_path} ({self._reason()}): {remedy}.")
        self._contexts: list[Any] = []
        self._runtime, self._loaded = runtime, loaded
        self.outputs = self._checked_outputs()
        self._settings, self._kernels = self._run_settings()

    @property
    def scratch_bytes(self) -> int:
        """GPU memory that a context needs besides inputs, outputs and weights."""
        return int(self._loaded.device_memory_size_v2)

    def context(self, size: int, addresses: dict[str, int], scratch: int) -> Any:
        """Make a context that runs batches of one size.

        Args:
            size: batch size.
            addresses: GPU addresses of the input and the outputs, by name.
            scratch: GPU address of `scratch_bytes` bytes, which no other context uses at the same time.

        Raises:
            MachineError: TensorRT refuses.
        """
        context = self._loaded.create_execution_context(self._settings)
        if context is None:
            raise MachineError(f"{self._package.title} cannot run {self._engine.plan_path} ({self._reason()}).")
        self._contexts.append(context)
        context.set_device_memory(scratch, self.scratch_bytes)
        self._expect(context.set_optimization_profile_async(0, int(self._queue.stream)), "choosing the batch sizes")
        self._queue.wait()
        self._expect(context.set_input_shape(self._spec.input_name, (size, *self._spec.item_shape)), "a batch's shape")
        for name, address in addresses.items():
            self._expect(context.set_tensor_address(name, address), f"the address of {name}")
        return context

    def run(self, context: Any) -> None:
        """Begin a run of a context.

        Raises:
            MachineError: TensorRT refuses.
        """
        self._expect(context.execute_async_v3(int(self._queue.stream)), "running a batch")

    def keep_kernels(self) -> None:
        """Store the kernels that TensorRT-RTX compiled.

        Raises:
            OSError: they cannot be written.
        """
        if self._kernels is None:
            return
        compiled = bytes(self._kernels.serialize())
        if compiled != read_sealed(self._engine.kernels_path):
            write_sealed(self._engine.kernels_path, compiled)

    def _refuse_invalid(self, validity: Any, diagnostics: int) -> None:
        """Refuse a plan that TensorRT-RTX finds invalid by its header."""
        if validity != self._module.EngineValidity.INVALID:
            return
        flags = self._module.EngineInvalidityDiagnostics.__members__
        reasons = [name.lower().replace("_", " ") for name, flag in flags.items() if diagnostics & int(flag)]
        raise MachineError(
            f"{self._package.title} cannot run {self._engine.plan_path} here "
            f"({', '.join(reasons) or self._reason()}): update the driver, or {self._remedy}."
        )

    def _checked_outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs; refuse an engine that does not match its manifest and the spec."""
        kinds, loaded, given = self._module.DataType, self._loaded, self._spec.input_name
        names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
        there = {name: (loaded.get_tensor_dtype(name), tuple(loaded.get_tensor_shape(name))) for name in names}
        outputs = tuple(name for name in names if name != given)
        item, batches = self._spec.item_shape, self._engine.manifest.batches
        wanted = {given: (kinds.UINT8, (-1, *item))} | dict.fromkeys(outputs, (kinds.FLOAT, (-1,)))
        sizes = (batches.smallest, batches.tuned, batches.largest)
        taken = [tuple(shape) for shape in loaded.get_tensor_profile_shape(given, 0)] if there == wanted else []
        if LOGIT not in outputs or taken != [(size, *item) for size in sizes]:
            raise ModelError(f"{self._engine.plan_path} is not the engine that its record describes: {self._remedy}.")
        return outputs

    def _run_settings(self) -> tuple[Any, Any]:
        """Return the settings of contexts and, with TensorRT-RTX, its cache of kernels."""
        ours = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._package.flavor == "tensorrt":
            return ours, None
        settings = self._loaded.create_runtime_config()
        settings.set_execution_context_allocation_strategy(ours)
        strategies = self._module.DynamicShapesKernelSpecializationStrategy
        settings.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        kernels, kept = settings.create_runtime_cache(), read_sealed(self._engine.kernels_path)
        if kept is not None:
            kernels.deserialize(kept)  # if it refuses them, it compiles
        settings.set_runtime_cache(kernels)
        return settings, kernels

    def _expect(self, done: bool, what: str) -> None:
        if not done:
            raise MachineError(f"{self._package.title} failed at {what} ({self._reason()}): {self._remedy}.")

    def _reason(self) -> str:
        errors = distinct_texts(self._package.messages, errors=True, without_gpu=False)
        return errors[-1] if errors else "it gives no reason"

    def close(self) -> None:
        """Drop contexts before the engine, and the engine before the runtime."""
        self._contexts.clear()
        self._settings = self._kernels = None
        self._loaded = None
        self._runtime = None


log = logging.getLogger(__name__)


def usable_packages(target: Target) -> tuple[Package, ...]:
    """Return the installed packages that run on a GPU, the preferred one first."""
    usable = []
    for flavor in installed_flavors():
        with contextlib.suppress(MachineError):
            package = load_package(flavor)
            # TensorRT-RTX leaves out some, such as 9.0; TensorRT does not list its own.
            if flavor == "tensorrt" or target.compute_capability in package.capabilities():
                usable.append(package)
    return tuple(usable)


def built_engine(artifact: Manifest) -> tuple[Package, Engine]:
    """Find the engine of an artifact for this GPU.

    Raises:
        MachineError: there is no GPU, no package that runs on it, or no engine.
        ModelError: there is an engine, but it must not be used.
    """
    target = present_target()
    if target is None:
        raise MachineError("TensorRT needs an NVIDIA GPU, and none is visible: use another --backend.")
    packages = usable_packages(target)
    if not packages:
        raise MachineError(
            f"No TensorRT that runs on {target.gpu} is installed: run `{install_extra('tensorrt')}`, or use "
            "another --backend."
        )
    return first_engine(artifact, packages, target)


def first_engine(artifact: Manifest, packages: Sequence[Package], target: Target) -> tuple[Package, Engine]:
    """Return the engine of the first package that has a usable one; see `built_engine`.

    Args:
        artifact: manifest of the artifact.
        packages: at least one, the preferred one first.
        target: GPU to run on.
    """
    problems: list[DeepscanError] = []
    for package in packages:
        try:
            return package, find_engine(artifact, package.flavor, version=package.version, target=target)
        except (MachineError, ModelError) as error:
            problems.append(error)
    # An unusable engine explains more than a missing one.
    raise next((problem for problem in problems if isinstance(problem, ModelError)), problems[0])


class TensorRtBackend:
    """Runs an artifact with the engine that was built from it.

    Raises:
        MachineError: there is no engine for this GPU, or CUDA or TensorRT fails.
        ModelError: the engine is stale, was changed, or does not match its manifest.
    """

    def __init__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> None:  # noqa: ARG002
        if device != "cuda":
            raise MachineError("TensorRT runs on NVIDIA GPUs only: use --device cuda, or another --backend.")
        manifest, spec = artifact.manifest, artifact.manifest.spec
        package, engine = built_engine(manifest)
        self._source = manifest.file
        self.name = f"{package.flavor}-{device}"
        self.precision: Arithmetic = precision
        self.max_batch = engine.manifest.batches.largest
        self._sizes = batch_sizes(self.max_batch)
        self._batch_input = BatchInput(first_gpu(), spec.item_shape)
        self._queue = first_gpu().queue()
        loaded = LoadedEngine(package, engine, spec, self._queue, remedy=rebuilding(manifest, package.flavor))
        try:
            empty = self._queue.empty
            self._pixels = empty((self.max_batch, *spec.item_shape), np.dtype(np.uint8))
            self._answers = {name: empty((self.max_batch,), np.dtype(np.float32)) for name in loaded.outputs}
            self._scratch = empty((loaded.scratch_bytes,), np.dtype(np.uint8))
            places = {spec.input_name: self._pixels} | self._answers
            addresses = {name: array.address for name, array in places.items()}
            self._contexts = {size: loaded.context(size, addresses, self._scratch.address) for size in self._sizes}
            for context in self._contexts.values():  # the first run compiles kernels
                loaded.run(context)
                self._queue.wait()
            with contextlib.suppress(OSError):  # they only save time
                loaded.keep_kernels()
        except BaseException:
            loaded.close()
            raise
        self._loaded = loaded

    @staticmethod
    def precisions(manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:
        """See `BackendClass.precisions`. An engine computes in its artifact's precision, and has to be built first."""
        target = present_target() if device == "cuda" and cuda_is_installed() else None
        if target is None:
            return ()
        try:
            for flavor in installed_flavors():
                version = package_version(flavor)
                if version is not None:
                    with contextlib.suppress(MachineError):
                        find_engine(manifest, flavor, version=version, target=target)
                        return (manifest.precision,)
        except ModelError as error:
            log.warning("%s", error)
        return ()

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """See `Backend.logits`."""
        size = size_for(len(batch), self._sizes)
        self._batch_input.fill(self._pixels.address, batch)
        self._loaded.run(self._contexts[size])
        logits: NDArray[np.float32] = self._queue.download(self._answers[LOGIT])[: len(batch)]
        return finite(logits, source=self._source)

    def close(self) -> None:
        """See `Backend.close`."""
        self._contexts.clear()
        self._loaded.close()
        del self._pixels, self._answers, self._scratch
