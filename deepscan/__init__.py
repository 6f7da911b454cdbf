"""deepscan: how likely is a face in this video forged?

from deepscan import scan

for result in scan("videos"):
    print(result.path, result.status, result.score)
"""

from __future__ import annotations

import logging
import os

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
from deepscan.version import __version__

TYPE_CHECKING = False  # as type checkers see it, without the time that importing `typing` takes
if TYPE_CHECKING:
    from typing import Any

    from deepscan.evaluation.evaluate import evaluate
    from deepscan.evaluation.figures import Evaluation
    from deepscan.limits import Limits
    from deepscan.options import ScanOptions
    from deepscan.results import FrameScore, Quality, Segment, TrackResult, VideoResult
    from deepscan.runtime.scan import Scan, scan
    from deepscan.runtime.store.reading import read_frames, read_results

# ONNX Runtime sends usage data unless this is set before it is loaded. Set here, so that it holds in every process and
# for every package that loads ONNX Runtime on deepscan's behalf.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# A program that sets up no logging sees nothing of it.
logging.getLogger(__name__).addHandler(logging.NullHandler())
__all__ = [
    "DeepscanError",
    "DeviceMemoryError",
    "Evaluation",
    "FrameScore",
    "InputError",
    "Limits",
    "MachineError",
    "ModelError",
    "OutputError",
    "OverLimit",
    "Quality",
    "Scan",
    "ScanOptions",
    "Segment",
    "TrackResult",
    "UnreachableInput",
    "UnreadableInput",
    "UnsupportedInput",
    "UsageError",
    "VideoResult",
    "__version__",
    "evaluate",
    "read_frames",
    "read_results",
    "scan",
]

# Looked up when first used, so that `deepscan --help` loads no decoder and no runtime, and Ctrl-C finds its handler.
_HOMES = {
    "Evaluation": "deepscan.evaluation.figures",
    "evaluate": "deepscan.evaluation.evaluate",
    "FrameScore": "deepscan.results",
    "Limits": "deepscan.limits",
    "Scan": "deepscan.runtime.scan",
    "scan": "deepscan.runtime.scan",
    "read_frames": "deepscan.runtime.store.reading",
    "read_results": "deepscan.runtime.store.reading",
    "Quality": "deepscan.results",
    "ScanOptions": "deepscan.options",
    "Segment": "deepscan.results",
    "TrackResult": "deepscan.results",
    "VideoResult": "deepscan.results",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
