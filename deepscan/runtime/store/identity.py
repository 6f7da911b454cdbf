"""Keys of the store: when two results are of the same row, and when an earlier one makes a new one unnecessary.

A *row* is one input, by its path as given, and one detector, by its name: its newest result counts. A result is not
computed again if it is there for the same content, from the same detector with the same weights, settings, backend and
precision.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from deepscan.runtime.media.inputs import normalized_path


class RowKey(NamedTuple):
    """Which row a result is of.

    Attributes:
        path: of the input as given, without what makes no difference; see `normalized_path`.
        model: name of the detector.
    """

    path: str
    model: str

    @classmethod
    def of(cls, path: str, model: str) -> RowKey:
        """Return the key of the row of an input and a detector."""
        return cls(normalized_path(path), model)


class DetectorId(NamedTuple):
    """What a score depends on besides the content and the computation."""

    model: str
    weights_sha256: str
    settings_sha256: str


class Computation(NamedTuple):
    """What computed a score: the backend with its device, and the precision of its arithmetic."""

    backend: str
    precision: str


class DetectorKey(msgspec.Struct, frozen=True):
    """One detector of a scan: which results are its own, and which of them it accepts from earlier scans.

    Attributes:
        model, weights_sha256, settings_sha256: as in every result of it.
        computations: backend and precision of the results that count; None where any do.
    """

    model: str
    weights_sha256: str
    settings_sha256: str
    computations: frozenset[tuple[str, str]] | None = None

    @property
    def id(self) -> DetectorId:
        """What its results are found by."""
        return DetectorId(self.model, self.weights_sha256, self.settings_sha256)

    def accepts(self, computation: Computation) -> bool:
        """Tell whether a result that was computed so counts."""
        return self.computations is None or computation in self.computations
