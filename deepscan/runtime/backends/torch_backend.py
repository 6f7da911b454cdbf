"""torch as a backend: the network that an artifact was made from, compiled where there is a GPU.

Some settings of torch belong to the process, not to a module: what CUDA may round, which is set once and the same for
all, and the number of threads on the processor. With OpenMP that is the calling thread's own besides, and code that
was compiled under one number is compiled again under another; so it is set before each run.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from deepscan.errors import DeviceMemoryError, MachineError
from deepscan.installing import install_extra
from deepscan.runtime.backends.batch_input import batch_input_on_cuda
from deepscan.runtime.backends.batching import batch_sizes, fill, size_for
from deepscan.runtime.backends.contract import finite, refuse_unless_possible
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.system.files import PRIVATE, data_folder
from deepscan.runtime.system.machine import nvidia_gpus

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.backends.batch_input import BatchInput
    from deepscan.runtime.backends.contract import Items
    from deepscan.runtime.system.machine import Device

PACKAGE: Final = "torch"
COMPILATIONS: Final = 128  # in one process; torch's own limit is 8, beyond which it gives up
# Maps pixels, uint8 [N, ...], to logits, float32 [N], and to something that is not needed.
Graph = Callable[["torch.Tensor"], "tuple[torch.Tensor, torch.Tensor]"]


class TorchBackend:
    """Executes the network of an artifact, with the weights in the file beside it; see `torch_network`.

    On a processor one item at a time, layer by layer; on a GPU compiled, in batches as large as tensors may be. In half
    precision torch itself chooses what stays in float32 (`torch.autocast`), whatever the artifact's graph has.

    Raises:
        MachineError: torch is not installed, or cannot use the device or the precision.
        ModelError: the weights are not there, or are not those of the artifact.
    """

    def __init__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> None:
        from deepscan.runtime.backends.artifact_graph import most_on_cuda

        manifest = artifact.manifest
        try:
            from deepscan.runtime.backends.torch_network import artifact_graph
        except (ImportError, OSError) as error:
            message = f"torch cannot be loaded ({error}): run `{install_extra('export')}`."
            raise MachineError(message) from error
        refuse_unless_possible("torch", manifest, precision, self.precisions(manifest, device), device)
        graph = artifact_graph(artifact)
        self._source = manifest.file
        self.name = f"{PACKAGE}-{device}"
        self.precision: Arithmetic = precision
        self._execution: Callable[[Items], NDArray[np.float32]]
        if device == "cpu":
            self.max_batch = 1
            self._execution = SingleExecution(graph, threads=threads)
        else:
            compiled = CompiledExecution(
                graph,
                device=device,
                half=precision == "fp16",
                item_shape=manifest.spec.item_shape,
                most=most_on_cuda(artifact, memory_bytes=nvidia_gpus()[0].memory_bytes),
                threads=threads,
                batch_input=batch_input_on_cuda(manifest.spec.item_shape),
            )
            self._execution, self.max_batch = compiled, compiled.sizes[-1]

    @staticmethod
    def precisions(manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:
        """See `BackendClass.precisions`.

        On a processor half is widened to float32, as ONNX Runtime does: few processors multiply halves. Quantized
        graphs are refused: torch would compute them in float32, with what was lost and without what was won.
        """
        if manifest.precision == "int8" or find_spec(PACKAGE) is None:
            return ()
        if device == "cpu":
            return ("fp32",)
        return (manifest.precision,) if _has_cuda() and nvidia_gpus() else ()

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """See `Backend.logits`."""
        return finite(self._execution(batch), source=self._source)

    def close(self) -> None:
        """See `Backend.close`."""
        del self._execution
        gc.collect()  # a module and what was compiled of it refer to each other
        if self.name.endswith("cuda"):
            import torch

            torch.cuda.empty_cache()  # for others on the same GPU


class SingleExecution:
    """Runs a module on the processor, item by item.

    torch takes other kernels for other sizes of a batch, with other last digits; one by one, an answer cannot depend
    on its neighbors. Nothing is compiled: that needs a C++ compiler, which a machine may lack, and took 30 s for
    `lite` and 72 s for AltFreezing on two busy cores.

    Args:
        graph: the module, in evaluation mode.
        threads: of one run.
    """

    def __init__(self, graph: Graph, *, threads: int) -> None:
        self._graph = graph
        self._threads = threads

    def __call__(self, batch: Items) -> NDArray[np.float32]:
        """Return the logits, float32 [N], of a batch of N items."""
        import torch

        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            # Copies, as torch takes only memory that may be written to and runs forwards.
            items = (torch.from_numpy(np.array(host_array(item)[None], order="C")) for item in batch)
            values: NDArray[np.float32] = torch.cat([self._graph(item)[0] for item in items]).numpy()
        return values


class CompiledExecution:
    """Runs a module as `torch.compile` makes it, in batches of a few sizes.

    For each size kernels of fixed shapes are made on loading, which takes a while; shapes that stay free would spare
    that, but not let cuDNN choose by measurement. The first worker of a scan is ready before others start, and these
    find what it compiled in the data folder. A batch is filled up to the next size. Sizes grow by factors of four,
    because where batches are small the GPU is not what is waited for. CUDA graphs (the mode `reduce-overhead`) are left
    out: torch ties them to a thread, and detectors are loaded in another than they run in.

    On a GPU it runs on a stream of its own: FFmpeg copies pictures on the default stream, which waits for all others
    that do not say that they need no such wait.

    Args:
        graph: the module, in evaluation mode; is moved to the device.
        device: `cuda`, the first GPU; or `cpu`, which needs a C++ compiler.
        half: whether matrices and convolutions are multiplied in half precision.
        item_shape: of what a batch holds.
        most: the largest batch.
        threads: of one run, on the processor.
        batch_input: fills the input where it lies on the device; without one, torch copies batches of the host itself.

    Attributes:
        sizes: sizes of batches that the GPU's memory is large enough for, ascending.

    Raises:
        MachineError: the module cannot be compiled here, or the GPU's memory is too small.
    """

    def __init__(
        self,
        graph: torch.nn.Module,
        *,
        device: str,
        half: bool = False,
        item_shape: tuple[int, ...],
        most: int,
        threads: int,
        batch_input: BatchInput | None = None,
    ) -> None:
        import torch

        if device == "cuda":
            _be_exact_and_fast()
        self._threads = threads
        self._device = device
        self._half = half
        self.sizes = batch_sizes(most)[::-2][::-1]
        self._stream: Any = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        self._batch_input = batch_input
        shape = (self.sizes[-1], *item_shape)
        if batch_input is None:
            # Page-locked, so that the GPU fetches it without another copy.
            self._pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=device == "cuda")
        else:
            with torch.inference_mode():  # for torch's compiler, another kind of tensor than one made outside
                self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        cache = data_folder() / "torch"
        cache.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        with warnings.catch_warnings(), self._on_stream(), _translated_errors():
            warnings.simplefilter("ignore")  # torch's compiler warns of torch's own past, and advises TF32
            self._compiled: Graph = torch.compile(_channels_last(graph.to(device)), dynamic=False, fullgraph=True)
            for number, size in enumerate(self.sizes):
                try:
                    self(np.zeros((size, *item_shape), dtype=np.uint8))
                except DeviceMemoryError:
                    if not number:
                        raise
                    self.sizes = self.sizes[:number]
                    break

    def _on_stream(self) -> AbstractContextManager[object]:
        import torch

        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def __call__(self, batch: Items) -> NDArray[np.float32]:
        """Return the logits, float32 [N], of a batch of N items.

        Raises:
            MachineError: see the class.
        """
        import torch

        torch.set_num_threads(self._threads)
        # All detectors share the code of one wrapper, of which each size of each is another compilation. Each thread
        # has its own limit.
        torch._dynamo.config.recompile_limit = COMPILATIONS
        size = size_for(len(batch), self.sizes)
        if self._batch_input is None:
            fill(self._pixels.numpy(), batch, size)
        else:
            self._batch_input.fill(self._pixels.data_ptr(), batch)
        halves = torch.autocast(self._device, dtype=torch.float16, enabled=self._half)
        with torch.inference_mode(), halves, self._on_stream(), _translated_errors():
            pixels = self._pixels[:size].to(self._device, non_blocking=True)
            # Copying back waits for all that was begun on the stream, so the pixels may be overwritten afterwards.
            values: NDArray[np.float32] = self._compiled(pixels)[0][: len(batch)].float().cpu().numpy()
        return values


def _channels_last(graph: torch.nn.Module) -> torch.nn.Module:
    """Lay out the kernels of convolutions as the GPU's fast kernels want them; what they give is laid out alike."""
    import torch

    for weight in graph.parameters():
        if weight.ndim in (4, 5):
            layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
            weight.data = weight.data.contiguous(memory_format=layout)
    return graph


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Say in one sentence what torch may lack."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            "The GPU's memory is too small for the torch backend: end other programs on it, or use another --backend."
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[:2]).strip()
        raise MachineError(
            f"What torch compiles cannot be run here ({reason}): install a C++ compiler and Python's headers, or use "
            "another --backend."
        ) from error


def _be_exact_and_fast() -> None:
    """Let CUDA compute float32 as float32, add halves up in float32, and choose convolutions by measurement."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = True


def _has_cuda() -> bool:
    """Tell whether the installed torch was built with CUDA, without importing it, which takes seconds."""
    found = find_spec(PACKAGE)
    folders = found.submodule_search_locations if found is not None else None
    return any(any(Path(folder).glob("lib/*torch_cuda*")) for folder in folders or ())
