"""Runs a torch module over batches, item by item on a processor, compiled on a GPU.

Some settings of torch belong to the process, not to a module: what CUDA may round, which is set once and the same for
all, and the number of threads on the processor. With OpenMP that is the calling thread's own besides, and code that
was compiled under one number is compiled again under another; so it is set before each run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepscan.errors import DeviceMemoryError, MachineError
from deepscan.runtime.backends.backends import refuse_device_items
from deepscan.runtime.backends.batch_sizes import batch_sizes, fill, size_for

if TYPE_CHECKING:
    from deepscan.runtime.backends.backends import Items
    from deepscan.runtime.backends.batch_input import BatchInput


class SingleExecution:
    """Runs a module on the processor, item by item.

    torch takes other kernels for other sizes of a batch, with other last digits; one by one, an answer cannot depend
    on its neighbors. Nothing is compiled: that needs a C++ compiler, which a machine may lack, and took 30 s for
    `lite` and 72 s for AltFreezing on two busy cores.

    Args:
        module: takes uint8 [N, ...] and returns a tuple.
        output: which of the tuple is wanted, float32 [N].
        threads: of one run.
    """

    def __init__(self, module: nn.Module, *, output: int, threads: int) -> None:
        self._module = module
        self._output = output
        self._threads = threads

    def __call__(self, batch: Items) -> NDArray[np.float32]:
        """Return float32 [N] for a batch of N items."""
        refuse_device_items(batch)
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            # Copies, as torch takes only memory that may be written to and runs forwards.
            items = (torch.from_numpy(np.array(item[None], order="C")) for item in batch)
            answers = [self._module(item)[self._output] for item in items]
            values: NDArray[np.float32] = torch.cat(answers).numpy()
        return values


class CompiledExecution:
    """Runs a module as `torch.compile` makes it, in batches of a few sizes.

    For each size kernels of fixed shapes are made when it is first needed, which takes a while; shapes that stay free
    would spare that, but not let cuDNN choose by measurement. A batch is filled up to the next size. Sizes grow by
    factors of four, because where batches are small the GPU is not what is waited for. CUDA graphs (the mode
    `reduce-overhead`) are left out: torch ties them to a thread, and detectors are loaded in another than they run in.

    Args:
        module: takes uint8 [N, ...] and returns a tuple; is moved to the device.
        device: `cuda`, the first GPU; or `cpu`, which needs a C++ compiler.
        output: which of the tuple is wanted, float32 [N].
        item_shape: of what a batch holds.
        most: the largest batch.
        threads: of one run, on the processor.
        batch_input: fills the input where it lies on the device; without one, torch copies batches of the host itself.

    Raises:
        MachineError: the module cannot be compiled here, or the GPU's memory is too small.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        device: str,
        output: int,
        item_shape: tuple[int, ...],
        most: int,
        threads: int,
        batch_input: BatchInput | None = None,
    ) -> None:
        if device == "cuda":
            _be_exact_and_fast()
        self._threads = threads
        self._device = device
        self._output = output
        self._sizes = batch_sizes(most)[::-2][::-1]
        self._batch_input = batch_input
        shape = (self._sizes[-1], *item_shape)
        if batch_input is None:
            # Page-locked, so that the GPU fetches it without another copy.
            self._pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=device == "cuda")
        else:
            with torch.inference_mode():  # for torch's compiler, another kind of tensor than one made outside
                self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        with warnings.catch_warnings(), _failing_for_people():
            warnings.simplefilter("ignore")  # torch's compiler warns of torch's own past, and advises TF32
            self._compiled = torch.compile(module.to(device), dynamic=False, fullgraph=True)
            self(np.zeros((1, *item_shape), dtype=np.uint8))

    def __call__(self, batch: Items) -> NDArray[np.float32]:
        """Return float32 [N] for a batch of N items.

        Raises:
            MachineError: see the class.
        """
        torch.set_num_threads(self._threads)
        size = size_for(len(batch), self._sizes)
        if self._batch_input is None:
            fill(self._pixels.numpy(), batch, size)
        else:
            self._batch_input.fill(self._pixels.data_ptr(), batch)
        with torch.inference_mode(), _failing_for_people():
            pixels = self._pixels[:size].to(self._device, non_blocking=True)
            # Copying back waits for all that was asked of the GPU, so the pixels may be overwritten afterwards.
            values: NDArray[np.float32] = self._compiled(pixels)[self._output][: len(batch)].cpu().numpy()
        return values


@contextmanager
def _failing_for_people() -> Iterator[None]:
    """Say in one sentence what torch may lack."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            "The GPU's memory is too small for the torch backend: close what else uses it, or use another --backend."
        ) from error
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[:2]).strip()
        raise MachineError(
            f"What torch compiles cannot be run here ({reason}): install a C++ compiler and Python's headers, or use "
            "another --backend."
        ) from error


def _be_exact_and_fast() -> None:
    """Let CUDA compute float32 as float32, add halves up in float32, and choose convolutions by measurement."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = True
