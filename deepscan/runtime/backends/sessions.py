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

if LOADED_BEFORE:
    onnxruntime.disable_telemetry_events()

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.system.machine import Device

PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3
# What its allocator says, and CUDA, cuBLAS and cuDNN behind it.
OUT_OF_MEMORY = re.compile(r"Failed to allocate memory|out of memory|CUDA error 2\b|ALLOC_FAILED", re.IGNORECASE)


class Session:
    """A loaded ONNX model on one device.

    On CUDA float32 is float32: without `use_tf32` = 0, convolutions would round their inputs to ten bits.
    """

    def __init__(
        self,
        model: bytes,
        *,
        source: str,
        device: Device,
        threads: int,
        axes: Mapping[str, int] | None = None,
        captures: bool = False,
    ) -> None:
        """Load a model.

        Args:
            model: the ONNX file's bytes; given as bytes it can refer to no other file.
            source: its name, for messages.
            device: where it must run; anything else is an error, never a silent fallback.
            threads: of one run, on a CPU.
            axes: sizes of free axes, by their names in the model, where they never change.
            captures: on CUDA, runs are recorded as CUDA graphs; then `bound` is the only way to run. ONNX Runtime
                refuses a model of which it would have to compute anything but shapes on the CPU.

        Raises:
            MachineError: the device cannot be used.
            ModelError: ONNX Runtime refuses the model.
        """
        provider = PROVIDERS[device]
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
        settings: dict[str, str] = {}
        if device == "cuda":
            onnxruntime.preload_dlls()
            settings = {"use_tf32": "0", "enable_cuda_graph": str(int(captures))}
        self._device = device
        try:
            # Without `enable_fallback` = 0 its Python side would, after a failure, print a line and go on on the CPU.
            self._session = onnxruntime.InferenceSession(
                model, options, providers=[(provider, settings)], enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime raises its own, unexported types.
            raise ModelError(
                f"{source} is not a model that ONNX Runtime can run on {device} ({error}): export it again."
            ) from error
        if self._session.get_providers()[0] != provider:
            raise MachineError(
                f"{source} should run on {provider}, but runs on {self._session.get_providers()[0]}: "
                "run `deepscan doctor` to see which CUDA or cuDNN library is missing."
            )
        ran_by = {part.ep_name for part in self._session.get_provider_graph_assignment_info()}
        if ran_by and provider not in ran_by:
            raise MachineError(
                f"{source} should run on {provider}, which is loaded but runs no part of it: use --device cpu."
            )

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model; `outputs` None gives all, in the model's order."""
        results: list[NDArray[Any]] = self._session.run(outputs, dict(feeds))
        return results

    def bound(self, feed: str, shape: tuple[int, ...], output: str, *, number: int) -> Bound:
        """Return what runs the model on inputs of one shape, in buffers on the device that are made now.

        Args:
            feed: the input, which is uint8.
            shape: of it, the batch first.
            output: a float32 output [N], the only one that is computed.
            number: of the CUDA graph, at least 1; each shape needs its own.
        """
        return Bound(self._session, self._device, feed, shape, output, number)

    def bound_pictures(self, feed: str, shape: tuple[int, ...]) -> BoundPictures:
        """Return what runs the model on float32 inputs of one shape, in a buffer on the device that is made now."""
        return BoundPictures(self._session, self._device, feed, shape)

    def inputs(self) -> dict[str, tuple[str, list[int | str | None]]]:
        """Return the type and the shape of each input, by its name; a dimension that is not fixed is no number."""
        return {given.name: (given.type, given.shape) for given in self._session.get_inputs()}

    def output_names(self) -> list[str]:
        """Return the names of the outputs, in the model's order."""
        return [output.name for output in self._session.get_outputs()]


class Bound:
    """Runs a model on inputs of one shape, in buffers on the device whose addresses never change.

    A CUDA graph needs that: it is recorded in the first run and holds addresses. The input may be filled by `put`, or
    by whoever writes to its address; of the outputs the answers are copied back, nothing else.
    """

    def __init__(
        self, session: Any, device: Device, feed: str, shape: tuple[int, ...], output: str, number: int
    ) -> None:
        self._session = session
        with _short_of_memory():
            self._input = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, device, 0)
            self._output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape[:1], np.float32, device, 0)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(feed, self._input)
        self._binding.bind_ortvalue_output(output, self._output)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(number))

    def put(self, batch: NDArray[np.uint8]) -> None:
        """Copy a batch of the shape from the host's memory to the input."""
        self._input.update_inplace(batch)

    def run(self) -> NDArray[np.float32]:
        """Run the model on what the input holds; return its answers [N].

        It runs on a stream of ONNX Runtime's own, which knows of no other: whoever writes to the input waits until
        that is done. Handing in a stream (`user_compute_stream`) would spare the wait, but tie the session, and the
        graphs that it records, to a stream of one thread. When this returns, the input is no longer read.
        """
        with _short_of_memory():
            self._session.run_with_iobinding(self._binding, self._options)
        # A copy: on a CPU `numpy` shows the buffer itself, which the next run overwrites.
        answers: NDArray[np.float32] = self._output.numpy().copy()
        return answers

    def addresses(self) -> tuple[int, int]:
        """Return where the buffers of the input and of the answers begin."""
        return self._input.data_ptr(), self._output.data_ptr()


class BoundPictures:
    """Runs a model on float32 inputs of one shape, in a buffer on the device, and brings all outputs to the host.

    Attributes:
        address: of the input, which holds nothing yet.
    """

    def __init__(self, session: Any, device: Device, feed: str, shape: tuple[int, ...]) -> None:
        self._session = session
        with _short_of_memory():
            self._input = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
        self.address = int(self._input.data_ptr())
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(feed, self._input)
        self._names = [output.name for output in session.get_outputs()]
        for name in self._names:
            self._binding.bind_output(name)  # to the host's memory

    def run(self) -> dict[str, NDArray[Any]]:
        """Run the model on what the input holds; return the outputs, which the next run may overwrite.

        Whoever writes to the input waits until that is done, and may write again when this returns.
        """
        with _short_of_memory():
            self._session.run_with_iobinding(self._binding)
        return {name: value.numpy() for name, value in zip(self._names, self._binding.get_outputs(), strict=True)}


@contextmanager
def _short_of_memory() -> Iterator[None]:
    """Tell a lack of memory on the device from other failures: ONNX Runtime has no type for it, only words."""
    try:
        yield
    except Exception as error:
        if not OUT_OF_MEMORY.search(str(error)):
            raise
        raise DeviceMemoryError(
            "The GPU's memory is too small for ONNX Runtime: end other programs on it, or use --device cpu."
        ) from error


def available_providers() -> list[str]:
    """Return the execution providers that this ONNX Runtime was built with."""
    return list(onnxruntime.get_available_providers())


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime."""
    return str(onnxruntime.__version__)
