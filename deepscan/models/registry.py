"""The detectors that can be built from weights, by name; importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from deepscan.errors import UsageError
from deepscan.models import lite
from deepscan.spec import DetectorSpec


@dataclass(frozen=True)
class Detector:
    """A detector's spec and how to build its untrained network.

    Attributes:
        spec: what goes into its artefact.
        build: makes the module; it maps normalised pictures (or clips) to the logit of *fake* [N].
    """

    spec: DetectorSpec
    build: Callable[[], nn.Module]


DETECTORS: dict[str, Detector] = {
    lite.SPEC.name: Detector(spec=lite.SPEC, build=lite.build),
}


def detector(name: str) -> Detector:
    """Return the detector called `name`.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return DETECTORS[name]
    except KeyError:
        known = ", ".join(sorted(DETECTORS))
        raise UsageError(f"No detector is called {name!r}: use one of {known}.") from None
