"""ONNX Runtime as a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deepscan.errors import ModelError
from deepscan.runtime.sessions import Device, Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.runtime.artefacts import Artefact, Precision
    from deepscan.runtime.backends import Arithmetic

CROPS_AT_ONCE = 8
CLIPS_AT_ONCE = 1


def arithmetic(precision: Precision, device: Device) -> tuple[Arithmetic, ...]:
    """Return in what an artefact of this precision can be computed here; empty where it cannot be.

    On a CPU, ONNX Runtime widens half to float32; on CUDA it computes quantised convolutions in float32.
    """
    if device == "cpu":
        return ("int8",) if precision == "int8" else ("fp32",)
    return ("fp16",) if precision == "fp16" else ("fp32",)


class OnnxRuntimeBackend:
    """Executes an artefact with ONNX Runtime.

    Measured on two cores, a batch of 8 is the fastest for `lite`; larger ones leave the cache. Clips, of which one
    takes hundreds of megabytes inside, go one by one.

    Raises:
        MachineError: the device cannot be used.
        ModelError: the graph cannot be run, or does not take and give what its record says.
    """

    def __init__(self, artefact: Artefact, *, device: Device, threads: int, precision: Arithmetic) -> None:
        manifest, spec = artefact.manifest, artefact.manifest.spec
        self._session = Session(artefact.model, source=manifest.file, device=device, threads=threads)
        self._input = spec.input_name
        item = list(spec.item_shape)
        taken = {name: (kind, shape[1:]) for name, (kind, shape) in self._session.inputs().items()}
        if taken != {self._input: ("tensor(uint8)", item)} or "logit" not in self._session.output_names():
            wanted = f"uint8 {self._input} [N, {', '.join(map(str, item))}]"
            raise ModelError(f"{manifest.file} does not turn {wanted} into logit: export the detector again.")
        self._source = manifest.file
        self.name = f"onnxruntime-{device}"
        self.precision: Arithmetic = precision
        self.max_batch = CLIPS_AT_ONCE if spec.kind == "clip" else CROPS_AT_ONCE

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Backend.logits`."""
        (logits,) = self._session.run(["logit"], {self._input: batch})
        if not np.isfinite(logits).all():
            raise ModelError(f"{self._source} gave a logit that is not a finite number: export it in higher precision.")
        return logits

    def close(self) -> None:
        """See `Backend.close`."""
        del self._session
