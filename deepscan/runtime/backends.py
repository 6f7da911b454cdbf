"""Backends: what executes an artefact. `backend_choice` says which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import numpy as np

from deepscan.errors import MachineError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deepscan.runtime.artefacts import Manifest
    from deepscan.runtime.sessions import Device

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


def finite(logits: NDArray[np.float32], *, source: str) -> NDArray[np.float32]:
    """Return the logits as they are.

    Raises:
        ModelError: one of them is not a finite number.
    """
    if not np.isfinite(logits).all():
        raise ModelError(f"{source} gave a logit that is not a finite number: export it in higher precision.")
    return logits


def refuse_unless_possible(
    title: str, manifest: Manifest, precision: Arithmetic, possible: Sequence[Arithmetic], device: Device
) -> None:
    """Refuse a precision in which a backend cannot compute an artefact.

    Args:
        title: of the backend.
        manifest: of the artefact.
        precision: that is wanted.
        possible: what the backend can do with this artefact here.
        device: where.

    Raises:
        MachineError: it is none of the possible ones.
    """
    if precision not in possible:
        raise MachineError(
            f"{title} cannot compute {manifest.file}, which is {manifest.precision}, in {precision} on this {device}: "
            f"use {' or '.join(possible) or 'another --backend'}."
        )
