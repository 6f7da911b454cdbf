"""Keys of the store: which results belong to the same row, and which earlier result makes a new one unnecessary.

A *row* is one input, by its path as given, and one detector, by its name; it shows the newest result. A result is not
computed again if there is one for the same content from the same detector, with the same weights, settings, backend and
precision.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from deepscan.runtime.media.inputs import normalized_path


class RowKey(NamedTuple):
    """Key of a row.

    Attributes:
        path: normalized path of the input, see `normalized_path`.
        model: name of the detector.
    """

    path: str
    model: str

    @classmethod
    def of(cls, path: str, model: str) -> RowKey:
        """Return the key of the row of an input and a detector."""
        return cls(normalized_path(path), model)


class DetectorId(NamedTuple):
    """Everything that a score depends on besides the content and the computation."""

    model: str
    weights_sha256: str
    settings_sha256: str


class DetectorKey(msgspec.Struct, frozen=True):
    """Detector of a scan, and the results that it accepts from earlier scans.

    Attributes:
        model, weights_sha256, settings_sha256: fields of every result of the detector.
        computations: accepted backends, including their devices, and precisions.
    """

    model: str
    weights_sha256: str
    settings_sha256: str
    computations: frozenset[tuple[str, str]]

    @property
    def id(self) -> DetectorId:
        """Key of its results."""
        return DetectorId(self.model, self.weights_sha256, self.settings_sha256)
