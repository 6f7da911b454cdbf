"""The backends by name: those of this package, and those that other packages register.

Another package adds one with an entry point in its pyproject.toml, which names a class that keeps `BackendClass`:

    [project.entry-points."deepscan.backends"]
    toy = "toy_backend:ToyBackend"
"""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Final

from deepscan.errors import MachineError, UsageError
from deepscan.plugins import load_plugin, plugins

if TYPE_CHECKING:
    from deepscan.runtime.backends.contract import BackendClass

log = logging.getLogger(__name__)

GROUP: Final = "deepscan.backends"
BACKENDS: Final[dict[str, str]] = {
    "onnxruntime": "deepscan.runtime.backends.onnxruntime_backend:OnnxRuntimeBackend",
    "openvino": "deepscan.runtime.backends.openvino_backend:OpenVinoBackend",
    "torch": "deepscan.runtime.backends.torch_backend:TorchBackend",
    "tensorrt": "deepscan.runtime.backends.tensorrt.tensorrt_backend:TensorRtBackend",
    "ort-tensorrt": "deepscan.runtime.backends.onnxruntime_backend:OrtTensorRtBackend",
}


def backend_names() -> tuple[str, ...]:
    """Return the names of all backends, those of this package first."""
    return tuple(dict.fromkeys([*BACKENDS, *plugins(GROUP)]))


def backend_class(name: str) -> BackendClass:
    """Return the class of a backend; its module is imported, the library that it uses is not.

    Raises:
        UsageError: no backend has this name.
        MachineError: the package that registered it cannot be imported.
    """
    entry = EntryPoint(name, BACKENDS[name], GROUP) if name in BACKENDS else plugins(GROUP).get(name)
    if entry is None:
        raise UsageError(f"--backend {name!r} is not known: use one of auto, {', '.join(backend_names())}.")
    found: BackendClass = load_plugin(
        entry, f"backend {name}", wanted="BackendClass", fits=callable, raises=MachineError
    )
    return found


def usable_classes() -> dict[str, BackendClass]:
    """Return the classes of all backends by name; one that cannot be imported is logged and left out."""
    classes = {}
    for name in backend_names():
        try:
            classes[name] = backend_class(name)
        except MachineError as error:
            log.warning("%s", error)
    return classes
