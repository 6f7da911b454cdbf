"""deepscan: how likely is a face in this video forged?

from deepscan import scan

for result in scan("videos"):
    print(result.path, result.status, result.score)
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from deepscan.errors import (
    DeepscanError,
    DeviceMemoryError,
    InputError,
    MachineError,
    ModelError,
    OutputError,
    OverLimit,
    UnreachableInput,
    UnreadableInput,
    UnsupportedInput,
    UsageError,
)

if TYPE_CHECKING:
    from deepscan.runtime.journal.results import Segment, TrackResult, VideoResult
    from deepscan.runtime.limits import Limits
    from deepscan.runtime.scan import Scan, scan

__version__ = version("deepscan-video")
__all__ = [
    "DeepscanError",
    "DeviceMemoryError",
    "InputError",
    "Limits",
    "MachineError",
    "ModelError",
    "OutputError",
    "OverLimit",
    "Scan",
    "Segment",
    "TrackResult",
    "UnreachableInput",
    "UnreadableInput",
    "UnsupportedInput",
    "UsageError",
    "VideoResult",
    "__version__",
    "scan",
]

# Looked up when first used, so that `deepscan --help` loads no decoder and no runtime.
_HOMES = {
    "Limits": "deepscan.runtime.limits",
    "Scan": "deepscan.runtime.scan",
    "scan": "deepscan.runtime.scan",
    "Segment": "deepscan.runtime.journal.results",
    "TrackResult": "deepscan.runtime.journal.results",
    "VideoResult": "deepscan.runtime.journal.results",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
