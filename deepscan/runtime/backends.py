"""Backends: what executes an artefact. `backend_choice` says which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What computes: an artefact of one precision may be computed in another (float32 in bfloat16, half in float32).
Arithmetic: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
# What stands in for `auto`, for a whole machine or session.
BACKEND_VARIABLE: Final = "DEEPSCAN_BACKEND"
BackendName: TypeAlias = Literal["onnxruntime", "openvino", "torch", "tensorrt"]


class Backend(Protocol):
    """Executes one artefact. Made by a class that takes (artefact, *, device, threads, precision)."""

    @property
    def name(self) -> str:
        """What runs it and where, as results show it: `onnxruntime-cpu`."""

    @property
    def precision(self) -> Arithmetic:
        """What the arithmetic really is."""

    @property
    def max_batch(self) -> int:
        """The largest batch that `logits` takes."""

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score a batch: RGB uint8 [N, H, W, 3] or [N, T, H, W, 3], 1 <= N <= max_batch, to logits float32 [N].

        The answer for one picture does not depend on the others in its batch. One thread at a time may call it.

        Raises:
            ModelError: a logit is not a finite number.
        """

    def close(self) -> None:
        """Give back what it holds; `logits` must not be called afterwards."""
