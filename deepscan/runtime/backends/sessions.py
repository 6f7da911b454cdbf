"""ONNX Runtime sessions, for detectors and for the face detector; the only module that imports it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

# A program may have loaded it before deepscan could turn its telemetry off (see `deepscan/__init__.py`).
LOADED_BEFORE = "onnxruntime" in sys.modules

import onnxruntime  # noqa: E402

from deepscan.errors import DeviceMemoryError, MachineError, ModelError  # noqa: E402
from deepscan.runtime.backends.batching import padded_count  # noqa: E402
from deepscan.runtime.cuda.nvidia_libraries import load_nvidia_libraries  # noqa: E402

if LOADED_BEFORE:
    onnxruntime.disable_telemetry_events()

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.system.machine import Device

PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
ERRORS_ONLY = 3
# What ONNX Runtime computes on the CPU on purpose beside a GPU: shapes, which are a few whole numbers.
SHAPE_OPS = frozenset(
    "Add Cast Concat Constant ConstantOfShape Div Equal Expand Gather Identity Mod Mul Range Reshape Shape Size Slice "
    "Squeeze Sub Unsqueeze Where".split()
)
# What its allocator says, and CUDA, cuBLAS and cuDNN behind it.
OUT_OF_MEMORY = re.compile(r"Failed to allocate memory|out of memory|CUDA error 2\b|ALLOC_FAILED", re.IGNORECASE)


class Session:
    """A loaded ONNX model on one device.

    On CUDA float32 is float32: without `use_tf32` = 0, convolutions would round their inputs to ten bits. CUDA graphs
    are left off. ONNX Runtime captures them in CUDA's global mode: meanwhile memory that any other thread takes, and
    any decoder that it creates, fails, and so does the capture. They would save little: beginning the kernels of a
    large batch takes less time than the GPU needs for them, and where batches are small the GPU is not waited for.
    """

    def __init__(
        self,
        model: bytes,
        *,
        source: str,
        device: Device,
        threads: int,
        axes: Mapping[str, int] | None = None,
        many_shapes: bool = False,
        tensorrt: Mapping[str, str] | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: the ONNX file's bytes; given as bytes it can refer to no other file.
            source: its name, for messages.
            device: where it must run; anything else is an error, never a silent fallback.
            threads: of one run, on a CPU.
            axes: sizes of free axes, by their names in the model, where they never change.
            many_shapes: whether inputs come in many shapes. Then, on CUDA, cuDNN's heuristics choose its algorithms
                instead of measurements, which each new shape would begin with; and `run` fills batches up to few sizes.
            tensorrt: on CUDA, settings of ONNX Runtime's TensorRT provider, which then runs what it can.

        Raises:
            MachineError: the device cannot be used.
            ModelError: ONNX Runtime refuses the model.
        """
        settings: dict[str, str] = {}
        if device == "cuda":
            search = "HEURISTIC" if many_shapes else "EXHAUSTIVE"
            settings = {"use_tf32": "0", "cudnn_conv_algo_search": search}
        providers = [(PROVIDERS[device], settings)]
        if tensorrt is not None:
            providers.insert(0, (TENSORRT_PROVIDER, dict(tensorrt)))
        provider = providers[0][0]
        if provider not in available_providers():
            raise MachineError(
                f"ONNX Runtime has no {provider} here, which --device {device} needs: run `deepscan doctor`."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        # Idle threads that spin would take the processor from the decoders.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        for name, size in (axes or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        if device == "cuda":
            load_nvidia_libraries()
            onnxruntime.preload_dlls()
        self._device, self._source = device, source
        self._fills_up = many_shapes and device == "cuda"
        try:
            # Without `enable_fallback` = 0 its Python side would, after a failure, print a line and go on on the CPU.
            self._session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime raises its own, unexported types.
            raise ModelError(
                f"{source} is not a model that ONNX Runtime can run on {device} ({error}): export it again."
            ) from error
        if self._session.get_providers()[0] != provider:
            raise MachineError(
                f"{source} should run on {provider}, but runs on {self._session.get_providers()[0]}: "
                "run `deepscan doctor` to see which CUDA or cuDNN library is missing."
            )
        parts = self._session.get_provider_graph_assignment_info()
        if parts and provider not in {part.ep_name for part in parts}:
            raise MachineError(
                f"{source} should run on {provider}, which is loaded but runs no part of it: use --device cpu."
            )
        elsewhere = computed_elsewhere(parts, [name for name, _ in providers])
        if elsewhere:
            raise ModelError(
                f"{source} is not a model that ONNX Runtime can run on {device} (it would compute "
                f"{', '.join(elsewhere)} on the CPU): use another --backend."
            )

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model on a batch; `outputs` None gives all, in the model's order.

        Raises:
            DeviceMemoryError: the device has no memory left.
            MachineError: ONNX Runtime fails.
        """
        with _translated_errors(self._source):
            if not self._fills_up:
                results: list[NDArray[Any]] = self._session.run(outputs, dict(feeds))
                return results
            (count,) = {len(feed) for feed in feeds.values()}
            missing = padded_count(count) - count
            filled = {name: np.concatenate([feed, np.repeat(feed[-1:], missing, 0)]) for name, feed in feeds.items()}
            return [values[:count] for values in self._session.run(outputs, filled)]

    def bound(
        self, feed: str, shape: tuple[int, ...], kind: type[np.generic], outputs: Sequence[str] | None = None
    ) -> Bound:
        """Return what runs the model on inputs of one shape, in a buffer on the device that is made now.

        Args:
            feed: name of the input.
            shape: shape of the input, the batch first.
            kind: type of its numbers.
            outputs: names of the outputs that are computed; None for all.

        Raises:
            DeviceMemoryError: the device has no memory left.
        """
        with _translated_errors(self._source):
            buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, self._device, 0)
            return Bound(self._session, self._source, feed, buffer, outputs or self.output_names())

    def inputs(self) -> dict[str, tuple[str, list[int | str | None]]]:
        """Return the type and the shape of each input, by its name; a dimension that is not fixed is no number."""
        return {given.name: (given.type, given.shape) for given in self._session.get_inputs()}

    def output_names(self) -> list[str]:
        """Return the names of the outputs, in the model's order."""
        return [output.name for output in self._session.get_outputs()]


class Bound:
    """Runs a model on what a buffer on the device holds, and brings the outputs to the host.

    The model runs on a stream of ONNX Runtime's own, which knows of no other: whoever writes to the buffer waits until
    that is done, and may write again when `run` returns.

    Attributes:
        address: address of the buffer, which holds nothing yet.
    """

    def __init__(self, session: Any, source: str, feed: str, buffer: Any, outputs: Sequence[str]) -> None:
        self._session, self._source, self._buffer, self._names = session, source, buffer, outputs
        self.address = int(buffer.data_ptr())
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(feed, buffer)
        for name in outputs:
            self._binding.bind_output(name)  # to the host's memory

    def put(self, batch: NDArray[Any]) -> None:
        """Copy a batch of the buffer's shape and type from the host's memory to the buffer."""
        self._buffer.update_inplace(batch)

    def run(self) -> dict[str, NDArray[Any]]:
        """Run the model, and return its outputs by name, which the next run may overwrite.

        Raises:
            DeviceMemoryError: the device has no memory left.
            MachineError: ONNX Runtime fails.
        """
        with _translated_errors(self._source):
            self._session.run_with_iobinding(self._binding)
            return {name: value.numpy() for name, value in zip(self._names, self._binding.get_outputs(), strict=True)}


def computed_elsewhere(parts: Sequence[Any], providers: Sequence[str]) -> list[str]:
    """Return the operators, except those of shapes, in parts of a graph that none of these providers runs."""
    alien = [node.op_type for part in parts if part.ep_name not in providers for node in part.get_nodes()]
    return sorted({operator for operator in alien if operator not in SHAPE_OPS})


@contextmanager
def _translated_errors(source: str) -> Iterator[None]:
    """Say in one sentence what failed; ONNX Runtime has no type for a lack of memory, only words."""
    try:
        yield
    except Exception as error:  # ONNX Runtime raises its own, unexported types.
        if OUT_OF_MEMORY.search(str(error)):
            raise DeviceMemoryError(
                "The GPU's memory is too small for ONNX Runtime: end other programs on it, or use --device cpu."
            ) from error
        reason = " ".join(str(error).split())
        raise MachineError(f"ONNX Runtime failed to run {source} ({reason}): use another --backend.") from error


def available_providers() -> list[str]:
    """Return the execution providers that this ONNX Runtime was built with."""
    return list(onnxruntime.get_available_providers())


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime."""
    return str(onnxruntime.__version__)
