"""Backends: what executes an artifact. `backend_choice` says which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from deepscan.errors import MachineError, ModelError
from deepscan.runtime.cuda.device import DeviceArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Manifest
    from deepscan.runtime.cuda.device import Pixels
    from deepscan.runtime.system.machine import Device

# A batch: one array [N, ...], or N crops or clips, of which each lies in the host's memory or on the device.
Items: TypeAlias = "NDArray[np.uint8] | Sequence[Pixels]"


class Backend(Protocol):
    """Executes one artifact. Made by a class that takes (artifact, *, device, threads, precision)."""

    @property
    def name(self) -> str:
        """What runs it and where, as results show it: `onnxruntime-cpu`."""

    @property
    def precision(self) -> Arithmetic:
        """What the arithmetic really is."""

    @property
    def max_batch(self) -> int:
        """The largest batch that `logits` takes."""

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """Score a batch: N times RGB uint8 [H, W, 3] or [T, H, W, 3], 1 <= N <= max_batch, to logits float32 [N].

        The answer for one picture does not depend on the others in its batch. One thread at a time may call it.

        Args:
            batch: what lies on a device is finished, and stays as it is until this returns.

        Raises:
            ModelError: a logit is not a finite number.
            TypeError: an item lies on a device, and this backend computes on the CPU.
        """

    def close(self) -> None:
        """Give back what it holds; `logits` must not be called afterwards."""


def refuse_device_items(batch: Items) -> None:
    """Refuse what lies in a device's memory, for backends that cannot reach it.

    Raises:
        TypeError: an item does.
    """
    if any(isinstance(item, DeviceArray) for item in batch):
        raise TypeError("items in a device's memory, for a backend that takes those in the host's")


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
    """Refuse a precision in which a backend cannot compute an artifact.

    Args:
        title: of the backend.
        manifest: of the artifact.
        precision: that is wanted.
        possible: what the backend can do with this artifact here.
        device: where.

    Raises:
        MachineError: it is none of the possible ones.
    """
    if precision not in possible:
        raise MachineError(
            f"{title} cannot compute {manifest.file}, which is {manifest.precision}, in {precision} on this {device}: "
            f"use {' or '.join(possible) or 'another --backend'}."
        )
