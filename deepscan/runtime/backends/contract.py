"""The contract of a backend, which executes an artifact. `registry` lists them, `selection` picks one for a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import numpy as np

from deepscan.errors import MachineError, ModelError
from deepscan.runtime.cuda.pixels import is_on_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deepscan.options import Arithmetic
    from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
    from deepscan.runtime.cuda.pixels import Pixels
    from deepscan.runtime.system.machine import Device

# Name of the output that holds the logits, in every artifact.
LOGIT: Final = "logit"
# A batch: one array [N, ...], or N crops or clips, of which each lies in the host's memory or on the device.
Items: TypeAlias = "NDArray[np.uint8] | Sequence[Pixels]"


class Backend(Protocol):
    """An artifact that is loaded and can be executed."""

    @property
    def name(self) -> str:
        """Registered name and device, as in the rows of results: `onnxruntime-cpu`."""

    @property
    def precision(self) -> Arithmetic:
        """Precision of the arithmetic that really runs."""

    @property
    def max_batch(self) -> int:
        """Largest batch that `logits` takes."""

    def logits(self, batch: Items) -> NDArray[np.float32]:
        """Score a batch: N times RGB uint8 [H, W, 3] or [T, H, W, 3], 1 <= N <= max_batch, to logits float32 [N].

        The logit of an item does not depend on the other items of its batch. One thread at a time may call it.

        Args:
            batch: items on a device are finished, and do not change until this returns.

        Raises:
            ModelError: a logit is not a finite number.
            TypeError: an item lies on a device, and this backend computes on the CPU.
        """

    def close(self) -> None:
        """Release everything; `logits` must not be called afterwards."""


class BackendClass(Protocol):
    """The class of a backend, which is what a registered name stands for."""

    def __call__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> Backend:
        """Load an artifact.

        Args:
            artifact: the detector.
            device: where it runs.
            threads: of one run, on a CPU.
            precision: of the arithmetic; one of `precisions`.

        Raises:
            MachineError: the backend is not installed, or cannot use this device or precision.
            ModelError: the backend cannot execute this artifact.
        """

    def precisions(self, manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:
        """Return the precisions in which an artifact can be computed here, its own or the nearest first.

        Empty where the backend cannot be used. The process that supervises a scan calls this, so it must not import
        the library that computes: package metadata, files and `runtime.system` tell enough, and whatever they miss is
        an error when the artifact is loaded.
        """


def refuse_device_items(batch: Items) -> None:
    """Refuse items in a device's memory, for backends that cannot reach it.

    Raises:
        TypeError: an item lies on a device.
    """
    if any(is_on_device(item) for item in batch):
        raise TypeError("items in a device's memory, for a backend that takes those in the host's")


def finite(logits: NDArray[np.float32], *, source: str) -> NDArray[np.float32]:
    """Return the logits unchanged.

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
        precision: that was asked for.
        possible: precisions that the backend has for this artifact here.
        device: where it would run.

    Raises:
        MachineError: the precision is not possible.
    """
    if precision not in possible:
        raise MachineError(
            f"{title} cannot compute {manifest.file}, which is {manifest.precision}, in {precision} on this {device}: "
            f"use {' or '.join(possible) or 'another --backend'}."
        )
