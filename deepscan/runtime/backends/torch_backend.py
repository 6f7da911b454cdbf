"""torch as a backend: the exported graph as a torch module, compiled where there is a GPU."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from deepscan.errors import MachineError
from deepscan.installing import install_extra
from deepscan.runtime.backends.backends import finite, refuse_unless_possible
from deepscan.runtime.backends.batch_input import batch_input_on_cuda
from deepscan.runtime.backends.contract_graph import LOGIT, checked_graph
from deepscan.runtime.backends.tensor_sizes import most_on_cuda
from deepscan.runtime.system.machine import nvidia_gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Precision
    from deepscan.runtime.backends.backends import Items
    from deepscan.runtime.system.machine import Device

PACKAGE: Final = "torch"


def arithmetic(precision: Precision, device: Device) -> tuple[Arithmetic, ...]:
    """Return in what an artifact of this precision can be computed here; empty where it cannot be.

    On a processor half is widened to float32, as ONNX Runtime does: few processors multiply halves. Quantized graphs
    are refused: torch would compute them in float32, with what was lost and without what was won.
    """
    if precision == "int8" or find_spec(PACKAGE) is None:
        return ()
    if device == "cpu":
        return ("fp32",)
    return (precision,) if _has_cuda() else ()


class TorchBackend:
    """Executes an artifact with torch, from the same ONNX file as all backends.

    On a processor one item at a time, operator by operator; on a GPU compiled, in batches as large as tensors may be.
    See `torch_graph` for the module and `torch_execution` for how it is run.

    Raises:
        MachineError: torch is not installed, or cannot use the device or the precision.
        ModelError: the graph cannot be run, or does not take and give what its record says.
    """

    def __init__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> None:
        manifest = artifact.manifest
        try:
            from deepscan.runtime.backends.torch_execution import CompiledExecution, SingleExecution
            from deepscan.runtime.backends.torch_graph import module_from_onnx
        except (ImportError, OSError) as error:
            message = f"torch cannot be loaded ({error}): run `{install_extra('export')}`."
            raise MachineError(message) from error
        possible = arithmetic(manifest.precision, device)
        refuse_unless_possible("torch", manifest, precision, possible, device)
        model = checked_graph(artifact)
        output = [given.name for given in model.graph.output].index(LOGIT)
        module = module_from_onnx(model, source=manifest.file, widen=device == "cpu")
        self._source = manifest.file
        self.name = f"{PACKAGE}-{device}"
        self.precision: Arithmetic = precision
        self._execution: Callable[[Items], NDArray[np.float32]]
        if device == "cpu":
            self.max_batch = 1
            self._execution = SingleExecution(module, output=output, threads=threads)
        else:
            self.max_batch = most_on_cuda(artifact, memory_bytes=nvidia_gpus()[0].memory_bytes)
            self._execution = CompiledExecution(
                module,
                device=device,
                output=output,
                item_shape=manifest.spec.item_shape,
                most=self.max_batch,
                threads=threads,
                batch_input=batch_input_on_cuda(manifest.spec.item_shape),
            )

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """See `Backend.logits`."""
        logits = self._execution(batch)
        return finite(logits, source=self._source)

    def close(self) -> None:
        """See `Backend.close`."""
        del self._execution
        gc.collect()  # a module and its graph refer to each other
        if self.name.endswith("cuda"):
            import torch

            torch.cuda.empty_cache()  # for others on the same GPU


def _has_cuda() -> bool:
    """Tell whether torch sees a GPU; it is asked only where the driver does, as importing it takes seconds."""
    if not nvidia_gpus():
        return False
    import torch

    return torch.cuda.is_available()
