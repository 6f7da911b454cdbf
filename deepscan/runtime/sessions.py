"""ONNX Runtime sessions, for detectors and for the face detector; the only module that imports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import onnxruntime

from deepscan.errors import MachineError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Device = Literal["cpu", "cuda"]
PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3


class Session:
    """A loaded ONNX model on one device."""

    def __init__(self, model: bytes, *, source: str, device: Device, threads: int) -> None:
        """Load a model.

        Args:
            model: the ONNX file's bytes; given as bytes it can refer to no other file.
            source: its name, for messages.
            device: where it must run; anything else is an error, never a silent fallback.
            threads: of one run, on a CPU.

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
        if device == "cuda":
            onnxruntime.preload_dlls()
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises its own, unexported types.
            raise ModelError(f"{source} is no model that ONNX Runtime can run ({error}): export it again.") from error
        if self._session.get_providers()[0] != provider:
            raise MachineError(
                f"{source} was to run on {provider} but got {self._session.get_providers()[0]}: "
                "run `deepscan doctor` to see which CUDA or cuDNN library is missing."
            )

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model; `outputs` None gives all, in the model's order."""
        results: list[NDArray[Any]] = self._session.run(outputs, dict(feeds))
        return results

    def inputs(self) -> dict[str, tuple[str, list[int | str | None]]]:
        """Return the type and the shape of each input, by its name; a dimension that is not fixed is no number."""
        return {given.name: (given.type, given.shape) for given in self._session.get_inputs()}

    def output_names(self) -> list[str]:
        """Return the names of the outputs, in the model's order."""
        return [output.name for output in self._session.get_outputs()]


def available_providers() -> list[str]:
    """Return the execution providers that this ONNX Runtime was built with."""
    return list(onnxruntime.get_available_providers())


def onnxruntime_version() -> str:
    """Return the version of ONNX Runtime."""
    return str(onnxruntime.__version__)
