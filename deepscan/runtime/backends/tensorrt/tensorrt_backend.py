"""TensorRT, or TensorRT-RTX, as a backend: runs the engine that was built of an artifact for this GPU.

Each batch size has a context of its own: a CUDA graph stands for the state in which its context was captured, and
giving that context another shape would spoil it ("CUDA Graphs" in TensorRT's best practices). Contexts never run at the
same time, so they share one piece of scratch memory.

TensorRT-RTX compiles kernels on this machine when a batch size is first run. It does so before the graph is captured,
which would else repeat the general kernels that it begins with ("Working with RTX CUDA Graphs"). What it compiled is
kept beside the engine; it checks by itself whether that fits GPU and driver.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deepscan.errors import DeepscanError, MachineError, ModelError
from deepscan.installing import install_extra
from deepscan.runtime.backends.batch_input import batch_input_on_cuda
from deepscan.runtime.backends.batching import batch_sizes, memory_for, size_for
from deepscan.runtime.backends.contract import finite
from deepscan.runtime.backends.tensorrt.engine_store import Engine, find_engine, rebuilding
from deepscan.runtime.backends.tensorrt.tensorrt_engine import LoadedEngine
from deepscan.runtime.backends.tensorrt.tensorrt_gpu import present_target
from deepscan.runtime.backends.tensorrt.tensorrt_packages import (
    Package,
    installed_flavors,
    load_package,
    package_version,
)
from deepscan.runtime.cuda.cuda_runtime import Stream, cuda_is_installed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.backends.tensorrt.tensorrt_manifest import Target
    from deepscan.runtime.system.machine import Device


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
        ModelError: there is an engine, and it must not be used.
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
    """Find the engine of the first package that has one which may be used; see `built_engine`.

    Args:
        artifact: what it must have been built from.
        packages: at least one, the preferred one first.
        target: what it shall run on.
    """
    problems: list[DeepscanError] = []
    for package in packages:
        try:
            return package, find_engine(artifact, package.flavor, version=package.version, target=target)
        except (MachineError, ModelError) as error:
            problems.append(error)
    # An engine that must not be used says more than one that is not there.
    raise next((problem for problem in problems if isinstance(problem, ModelError)), problems[0])


class TensorRtBackend:
    """Executes an artifact with the engine that was built of it.

    Raises:
        MachineError: there is no engine for this GPU, or CUDA or TensorRT fails.
        ModelError: the engine is stale, was changed, or is not what it should be.
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
        self._stream = Stream()
        try:
            # It has a queue of its own, so that filling the input is no part of the graphs that the stream records.
            batch_input = batch_input_on_cuda(spec.item_shape)
            assert batch_input is not None, "cuda-python is installed, or there were no stream"
            self._batch_input = batch_input
            loaded = LoadedEngine(package, engine, spec, self._stream, remedy=rebuilding(manifest, package.flavor))
            memory = memory_for(spec.item_shape, self.max_batch)
            self._pixels = self._stream.device_memory(memory.pixels)
            answers = {name: self._stream.device_memory(memory.answers) for name in loaded.outputs}
            scratch = self._stream.device_memory(loaded.scratch_bytes)
            self._logits = self._stream.host_memory((self.max_batch,), np.float32)
            contexts = {
                size: loaded.context(size, {spec.input_name: self._pixels, **answers}, scratch) for size in self._sizes
            }
            self._runs: dict[int, Callable[[], None]] = {}
            for size, context in contexts.items():
                run = partial(self._run, loaded, context, size, answers["logit"])
                # Shapes are settled, and kernels compiled, in a first run; neither may happen while capturing.
                run()
                self._stream.wait()
                if loaded.can_be_captured(context):
                    run = partial(self._stream.launch, self._stream.captured(run))
                self._runs[size] = run
            with contextlib.suppress(OSError):  # they only save time
                loaded.keep_kernels()
        except BaseException:
            self._stream.close()
            raise

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
        self._batch_input.fill(self._pixels, batch)
        self._runs[size]()
        self._stream.wait()
        logits: NDArray[np.float32] = self._logits[: len(batch)].copy()
        return finite(logits, source=self._source)

    def close(self) -> None:
        """See `Backend.close`."""
        self._runs.clear()
        self._stream.close()

    def _run(self, loaded: LoadedEngine, context: Any, size: int, logits: int) -> None:
        """Begin to run a batch, and to copy its logits back."""
        loaded.run(context)
        self._stream.to_host(self._logits[:size], logits)
