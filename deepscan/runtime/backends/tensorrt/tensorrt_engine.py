"""An engine that TensorRT has loaded, and the contexts it runs in."""

from __future__ import annotations

from typing import Any

from deepscan.errors import MachineError, ModelError
from deepscan.runtime.backends.tensorrt.engine_store import Engine, read_plan
from deepscan.runtime.backends.tensorrt.tensorrt_files import read_sealed, write_sealed
from deepscan.runtime.backends.tensorrt.tensorrt_packages import Package, heard
from deepscan.runtime.cuda.cuda_runtime import Stream
from deepscan.spec import DetectorSpec


class LoadedEngine:
    """An engine on the GPU.

    Args:
        package: that built it.
        engine: where it is.
        spec: of its detector.
        stream: what it will run on; when that is closed, the engine is given back.
        remedy: the end of messages.

    Raises:
        ModelError: the plan is not what its manifest says, or TensorRT refuses it.
        MachineError: it cannot run on this GPU or with this driver.
    """

    def __init__(self, package: Package, engine: Engine, spec: DetectorSpec, stream: Stream, *, remedy: str) -> None:
        plan = read_plan(engine, remedy=remedy)
        self._package, self._module, self._engine = package, package.module, engine
        self._stream, self._spec, self._remedy = stream, spec, remedy
        package.said.clear()
        runtime = self._module.Runtime(package.logger)
        if package.flavor == "tensorrt-rtx":
            self._refuse_invalid(*runtime.get_engine_validity(plan))
        loaded = runtime.deserialize_cuda_engine(plan)
        if loaded is None:
            raise ModelError(f"{package.title} does not take {engine.plan_path} ({self._reason()}): {remedy}.")
        self._contexts: list[Any] = []
        self._held = [loaded, runtime]
        stream.on_close(self._give_back)
        self._loaded = loaded
        self.outputs = self._checked_outputs()
        self._settings, self._kernels = self._run_settings()

    @property
    def scratch_bytes(self) -> int:
        """What a context needs on the GPU besides inputs, outputs and weights."""
        return int(self._loaded.device_memory_size_v2)

    def context(self, size: int, addresses: dict[str, int], scratch: int) -> Any:
        """Make a context that runs batches of one size.

        Args:
            size: of the batches.
            addresses: on the GPU, of the input and the outputs, by name.
            scratch: address of `scratch_bytes` bytes, which no other context uses at the same time.

        Raises:
            MachineError: TensorRT refuses.
        """
        context = self._loaded.create_execution_context(self._settings)
        if context is None:
            raise MachineError(f"{self._package.title} cannot run {self._engine.plan_path} ({self._reason()}).")
        self._contexts.append(context)
        context.set_device_memory(scratch, self.scratch_bytes)
        self._expect(context.set_optimization_profile_async(0, int(self._stream.handle)), "choosing the batch sizes")
        self._stream.wait()
        self._expect(context.set_input_shape(self._spec.input_name, (size, *self._spec.item_shape)), "a batch's shape")
        for name, address in addresses.items():
            self._expect(context.set_tensor_address(name, address), f"the address of {name}")
        return context

    def run(self, context: Any) -> None:
        """Begin to run a context on the stream.

        Raises:
            MachineError: TensorRT refuses.
        """
        self._expect(context.execute_async_v3(int(self._stream.handle)), "running a batch")

    def can_be_captured(self, context: Any) -> bool:
        """Tell whether a run of this context can become a CUDA graph."""
        ask = getattr(context, "is_stream_capturable", None)  # TensorRT-RTX only
        return ask is None or bool(ask(int(self._stream.handle)))

    def keep_kernels(self) -> None:
        """Keep what TensorRT-RTX compiled for the next time.

        Raises:
            OSError: it cannot be written.
        """
        if self._kernels is None:
            return
        compiled = bytes(self._kernels.serialize())
        if compiled != read_sealed(self._engine.kernels_path):
            write_sealed(self._engine.kernels_path, compiled)

    def _refuse_invalid(self, validity: Any, diagnostics: int) -> None:
        """Refuse what TensorRT-RTX knows from a look at the plan's head."""
        if validity != self._module.EngineValidity.INVALID:
            return
        flags = self._module.EngineInvalidityDiagnostics.__members__
        reasons = [name.lower().replace("_", " ") for name, flag in flags.items() if diagnostics & int(flag)]
        raise MachineError(
            f"{self._package.title} cannot run {self._engine.plan_path} here "
            f"({', '.join(reasons) or self._reason()}): update the driver, or {self._remedy}."
        )

    def _checked_outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs; refuse an engine that is not what its record and the spec say."""
        kinds, loaded, given = self._module.DataType, self._loaded, self._spec.input_name
        names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
        there = {name: (loaded.get_tensor_dtype(name), tuple(loaded.get_tensor_shape(name))) for name in names}
        outputs = tuple(name for name in names if name != given)
        item, batches = self._spec.item_shape, self._engine.manifest.batches
        wanted = {given: (kinds.UINT8, (-1, *item))} | dict.fromkeys(outputs, (kinds.FLOAT, (-1,)))
        sizes = (batches.smallest, batches.tuned, batches.largest)
        taken = [tuple(shape) for shape in loaded.get_tensor_profile_shape(given, 0)] if there == wanted else []
        if "logit" not in outputs or taken != [(size, *item) for size in sizes]:
            raise ModelError(f"{self._engine.plan_path} is not the engine that its record describes: {self._remedy}.")
        return outputs

    def _run_settings(self) -> tuple[Any, Any]:
        """Return what contexts are made with, and with TensorRT-RTX its cache of kernels."""
        ours = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._package.flavor == "tensorrt":
            return ours, None
        settings = self._loaded.create_runtime_config()
        settings.set_execution_context_allocation_strategy(ours)
        strategies = self._module.DynamicShapesKernelSpecializationStrategy
        settings.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        kernels, kept = settings.create_runtime_cache(), read_sealed(self._engine.kernels_path)
        if kept is not None:
            kernels.deserialize(kept)  # or it refuses them, and compiles
        settings.set_runtime_cache(kernels)
        return settings, kernels

    def _expect(self, done: bool, what: str) -> None:
        if not done:
            raise MachineError(f"{self._package.title} failed at {what} ({self._reason()}): {self._remedy}.")

    def _reason(self) -> str:
        errors = heard(self._package.said, errors=True, without_gpu=False)
        return errors[-1] if errors else "it gives no reason"

    def _give_back(self) -> None:
        """Drop contexts before the engine, and the engine before the runtime."""
        self._contexts.clear()
        self._settings = self._kernels = self._loaded = None
        self._held.pop(0)
        self._held.clear()
