"""ONNX Runtime as a backend. The library is imported when an artifact is loaded."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np

from deepscan.errors import MachineError, ModelError
from deepscan.installing import install_packages
from deepscan.runtime.backends.batch_input import batch_input_on_cuda
from deepscan.runtime.backends.batching import batch_sizes, fill, size_for, streams_for
from deepscan.runtime.backends.contract import LOGIT, finite, refuse_device_items
from deepscan.runtime.backends.devices import onnxruntime_has_cuda
from deepscan.runtime.backends.tensorrt.engine_store import engines_folder, make_private, refuse_open
from deepscan.runtime.backends.tensorrt.tensorrt_packages import is_installed, load_package
from deepscan.runtime.system.machine import nvidia_gpus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.backends.batch_input import BatchInput
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.backends.sessions import Bound, Session
    from deepscan.runtime.system.machine import Device

# Name of the free axis in the graphs that deepscan exports.
BATCH_AXIS: Final = "N"


class OnnxRuntimeBackend:
    """Executes an artifact with ONNX Runtime.

    On a CPU item by item, with N fixed to 1, side by side as `streams` says. On CUDA in batches that are as large as
    tensors may become.

    Raises:
        MachineError: the device cannot be used.
        ModelError: the graph cannot be run, or does not take and give what its record says.
    """

    registered_name = "onnxruntime"

    def __init__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> None:
        from deepscan.runtime.backends.artifact_graph import most_on_cuda
        from deepscan.runtime.backends.sessions import Session

        manifest, spec = artifact.manifest, artifact.manifest.spec
        possible = self.precisions(manifest, device)
        if possible and precision not in possible:
            raise ModelError(
                f"ONNX Runtime cannot compute {manifest.file}, which is {manifest.precision}, in {precision} on "
                f"{device}: leave out --precision."
            )
        on_cuda, streams = device == "cuda", streams_for(spec.kind, threads)
        session = Session(
            artifact.model,
            source=manifest.file,
            device=device,
            threads=streams.threads,
            axes={} if on_cuda else {BATCH_AXIS: 1},
            tensorrt=self.tensorrt_settings(artifact, device, precision),
        )
        item = list(spec.item_shape)
        taken = {name: (kind, shape[1:]) for name, (kind, shape) in session.inputs().items()}
        if taken != {spec.input_name: ("tensor(uint8)", item)} or LOGIT not in session.output_names():
            wanted = f"uint8 {spec.input_name} [N, {', '.join(map(str, item))}]"
            raise ModelError(f"{manifest.file} does not turn {wanted} into logit: export the detector again.")
        self._source = manifest.file
        self.name = f"{self.registered_name}-{device}"
        self.precision: Arithmetic = precision
        self._items: FixedBatches | SingleItems
        if on_cuda:
            self.max_batch = most_on_cuda(artifact, memory_bytes=nvidia_gpus()[0].memory_bytes)
            self._items = FixedBatches(
                session,
                spec.input_name,
                spec.item_shape,
                self.max_batch,
                batch_input=batch_input_on_cuda(spec.item_shape),
            )
        else:
            self.max_batch = streams.max_batch
            self._items = SingleItems(session, spec.input_name, streams.count)

    @staticmethod
    def precisions(manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:
        """See `BackendClass.precisions`.

        On a CPU, ONNX Runtime widens half to float32; on CUDA it computes quantized convolutions in float32.
        """
        if device == "cpu":
            return ("int8",) if manifest.precision == "int8" else ("fp32",)
        if not onnxruntime_has_cuda() or not nvidia_gpus():
            return ()
        return ("fp16",) if manifest.precision == "fp16" else ("fp32",)

    def tensorrt_settings(
        self,
        artifact: Artifact,  # noqa: ARG002
        device: Device,  # noqa: ARG002
        precision: Arithmetic,  # noqa: ARG002
    ) -> dict[str, str] | None:
        """Return the settings of ONNX Runtime's TensorRT provider; None where it is not used."""
        return None

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """See `Backend.logits`."""
        logits = self._items.logits(batch)
        return finite(logits, source=self._source)

    def close(self) -> None:
        """See `Backend.close`."""
        self._items.close()
        del self._items


class OrtTensorRtBackend(OnnxRuntimeBackend):
    """Executes an artifact with ONNX Runtime's own TensorRT provider, which has not been run yet.

    It builds an engine when an artifact is first loaded, which takes minutes, and keeps it in the data folder. What
    TensorRT cannot compute, CUDA computes.
    """

    registered_name = "ort-tensorrt"

    @staticmethod
    def precisions(manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:
        """See `BackendClass.precisions`; the packages of ONNX Runtime for CUDA contain the provider."""
        if device == "cpu" or manifest.precision == "int8" or not is_installed("tensorrt"):
            return ()
        return OnnxRuntimeBackend.precisions(manifest, device)

    def tensorrt_settings(self, artifact: Artifact, device: Device, precision: Arithmetic) -> dict[str, str]:
        """Return the settings of the provider, and load TensorRT's libraries.

        Raises:
            MachineError: there is no GPU, or a package is missing.
            ModelError: other users may write to the folder of engines.
        """
        from deepscan.runtime.backends.artifact_graph import most_on_cuda

        manifest, spec = artifact.manifest, artifact.manifest.spec
        if not self.precisions(manifest, device):
            raise MachineError(
                f"{self.registered_name} needs an NVIDIA GPU, an artifact in fp32 or fp16, onnxruntime-gpu and "
                f"TensorRT 10: run `{install_packages('tensorrt<11')}`, or use another --backend."
            )
        load_package("tensorrt")
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # the provider has no setting for it
        make_private(engines_folder())
        refuse_open(engines_folder(), remedy="run the same command again")
        most = most_on_cuda(artifact, memory_bytes=nvidia_gpus()[0].memory_bytes)
        shapes = {size: f"{spec.input_name}:{'x'.join(map(str, (size, *spec.item_shape)))}" for size in (1, most)}
        return {
            "trt_fp16_enable": str(int(precision == "fp16")),
            "trt_profile_min_shapes": shapes[1],
            "trt_profile_opt_shapes": shapes[most],
            "trt_profile_max_shapes": shapes[most],
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines_folder()),
            "trt_engine_cache_prefix": f"{self.registered_name}-{manifest.sha256}-{precision}-{most}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines_folder()),
        }


class SingleItems:
    """Runs a batch item by item, several side by side.

    Args:
        session: takes one item.
        feed: name of the input.
        streams: how many items side by side.
    """

    def __init__(self, session: Session, feed: str, streams: int) -> None:
        self._session = session
        self._feed = feed
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="onnxruntime")

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """Return the logits [N] of a batch of N items."""
        refuse_device_items(batch)
        return np.concatenate(list(self._pool.map(self._logit, batch)))

    def _logit(self, item: NDArray[np.uint8]) -> NDArray[np.float32]:
        (logit,) = self._session.run([LOGIT], {self._feed: item[None]})
        return logit

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown()


class FixedBatches:
    """Runs batches of any size in a few sizes, each of which keeps its buffer.

    A batch is run in the next size. A buffer is made when its size is first needed.

    Args:
        session: takes any number of items.
        feed: name of the input.
        item_shape: of an item of the batch.
        most: the largest batch.
        batch_input: fills the buffers; without one, ONNX Runtime copies batches of the host itself.
    """

    def __init__(
        self,
        session: Session,
        feed: str,
        item_shape: tuple[int, ...],
        most: int,
        *,
        batch_input: BatchInput | None = None,
    ) -> None:
        self._session = session
        self._batch_input = batch_input
        self._feed = feed
        self._item_shape = item_shape
        self._sizes = batch_sizes(most)
        self.bound: dict[int, Bound] = {}

    def close(self) -> None:
        """Give back the buffers."""
        self.bound.clear()

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """Return the logits [N] of a batch of at most `most` items."""
        size = size_for(len(batch), self._sizes)
        shape = (size, *self._item_shape)
        if size not in self.bound:
            self.bound[size] = self._session.bound(self._feed, shape, np.uint8, [LOGIT])
        bound = self.bound[size]
        if self._batch_input is not None:
            self._batch_input.fill(bound.address, batch)
        else:
            filled = np.empty(shape, dtype=np.uint8)
            fill(filled, batch, size)
            bound.put(filled)
        return bound.run()[LOGIT][: len(batch)].copy()
