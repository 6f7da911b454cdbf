"""A backend as another package would add one: the brighter a picture, the more forged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
from deepscan.runtime.backends.contract import Items
from deepscan.runtime.cuda.pixels import host_array
from deepscan.runtime.system.machine import Device


class ToyBackend:
    """Takes no notice of the artifact's graph."""

    def __init__(self, artifact: Artifact, *, device: Device, threads: int, precision: Arithmetic) -> None:  # noqa: ARG002
        self.name = f"toy-{device}"
        self.precision: Arithmetic = precision
        self.max_batch = 8

    @staticmethod
    def precisions(manifest: Manifest, device: Device) -> tuple[Arithmetic, ...]:  # noqa: ARG004
        return ("fp32",) if device == "cpu" else ()

    def logits(self, batch: Items) -> NDArray[np.float32]:
        return np.array([host_array(item).mean() / 64 - 2 for item in batch], dtype=np.float32)

    def close(self) -> None: ...
