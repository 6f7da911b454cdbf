"""OpenVINO on the CPU as a backend; the only module that imports it."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from deepscan.errors import MachineError, ModelError
from deepscan.installing import install_extra
from deepscan.runtime.backends.batching import streams_for
from deepscan.runtime.backends.contract import LOGIT, finite, refuse_device_items, refuse_unless_possible
from deepscan.runtime.system.library_files import openvino_telemetry_absent
from deepscan.runtime.system.machine import processor_flags
from deepscan.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.system.machine import Device

PACKAGE: Final = "openvino"
# Flags of Linux for the instructions that multiply in bfloat16: AVX-512-BF16, AMX or AVX2-VNNI-2.
BF16_FLAGS: Final = (
    frozenset(["avx512_bf16"]),
    frozenset(["amx_bf16"]),
    frozenset(["avx_vnni", "avx_vnni_int8", "avx_ne_convert"]),
)
DEVICE: Final = "CPU"
# What a quantized graph does not quantize is computed in float32.
PRECISION_HINTS: Final[dict[Arithmetic, str]] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
# What OpenVINO calls the layers that multiply, and the types it may say they were computed in.
MULTIPLYING: Final = frozenset(["Convolution", "FullyConnected", "MatMul"])
RUN_IN: Final[dict[Arithmetic, frozenset[str]]] = {
    "fp32": frozenset(["f32"]),
    "bf16": frozenset(["bf16"]),
    "int8": frozenset(["i8", "u8"]),
}


class OpenVinoBackend:
    """Executes an artifact with OpenVINO on the CPU.

    Item by item, with N fixed to 1, side by side as `streams` says: where N is free, OpenVINO takes other kernels, with
    other last digits.

    Raises:
        MachineError: OpenVINO is not installed, or not for this device or precision.
        ModelError: the graph cannot be run, does not take and give what its record says, or refers to other files.
    """

    def __init__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> None:
        from deepscan.runtime.backends.artifact_graph import checked_graph

        manifest = artifact.manifest
        core = _core()
        possible = self.precisions(manifest, device)
        refuse_unless_possible("OpenVINO", manifest, precision, possible, device)
        checked_graph(artifact)
        streams = streams_for(manifest.spec.kind, threads)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": streams.count,
            "INFERENCE_NUM_THREADS": streams.count * streams.threads,
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            # Threads tied to processors would get in the way of the decoders, and of other backends tied to the same.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = core.read_model(artifact.model)
            model.reshape({manifest.spec.input_name: [1, *manifest.spec.item_shape]})
            self._compiled = core.compile_model(model, DEVICE, settings)
        except RuntimeError as error:
            raise ModelError(
                f"{manifest.file} is not a model that OpenVINO can run ({_plain(error)}): use another --backend."
            ) from error
        _refuse_another_arithmetic(self._compiled, precision, manifest.file)
        self._requests = [self._compiled.create_infer_request() for _ in range(streams.count)]
        self._source = manifest.file
        self.name = f"{PACKAGE}-{device}"
        self.precision: Arithmetic = precision
        self.max_batch = streams.max_batch

    @staticmethod
    def precisions(manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:
        """See `BackendClass.precisions`.

        bfloat16 only where the processor multiplies in it: OpenVINO would emulate it on any processor with AVX-512.
        """
        if device != "cpu" or find_spec(PACKAGE) is None:
            return ()
        if manifest.precision == "int8":
            return ("int8",)
        flags = processor_flags()
        return ("fp32", "bf16") if any(needed <= flags for needed in BF16_FLAGS) else ("fp32",)

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """See `Backend.logits`."""
        refuse_device_items(batch)
        # The requests share the memory of the items while they run.
        items = [np.ascontiguousarray(item)[None] for item in batch]
        logits = np.empty(len(items), dtype=np.float32)
        count = len(self._requests)
        try:
            for place in range(len(items) + count):
                request, before = self._requests[place % count], place - count
                if before >= 0:
                    request.wait()
                    logits[before] = request.get_tensor(LOGIT).data[0]
                if place < len(items):
                    request.start_async({0: items[place]}, share_inputs=True)
        finally:
            for request in self._requests:
                request.wait()
        return finite(logits, source=self._source)

    def close(self) -> None:
        """See `Backend.close`."""
        del self._requests, self._compiled


@cache
def _core() -> Any:
    """Load OpenVINO, once.

    Raises:
        MachineError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        with openvino_telemetry_absent():
            import openvino
    except (ImportError, OSError) as error:
        message = f"OpenVINO cannot be loaded ({error}): run `{install_extra('openvino')}`."
        raise MachineError(message) from error
    return openvino.Core()


def _refuse_another_arithmetic(compiled: Any, precision: Arithmetic, source: str) -> None:
    """Look at what OpenVINO made of the graph; a precision hint is no more than a hint.

    A model without multiplying layers is taken as it is. Of a quantized one some layers may stay in float32.
    """
    ran: Counter[str] = Counter()
    for layer in compiled.get_runtime_model().get_ops():
        facts = layer.get_rt_info()
        if "layerType" in facts and facts["layerType"].value in MULTIPLYING:
            ran[facts["runtimePrecision"].value] += 1
    wanted = RUN_IN[precision]
    if ran and not (wanted & ran.keys() if precision == "int8" else wanted == ran.keys()):
        found = ", ".join(f"{counted(count, 'layer')} in {name}" for name, count in ran.items())
        raise MachineError(f"OpenVINO does not compute {source} in {precision} ({found}): use another --precision.")


def _plain(error: RuntimeError) -> str:
    """Return the last line of OpenVINO's message, which is the one that says what happened."""
    return str(error).strip().splitlines()[-1].rstrip(".")
