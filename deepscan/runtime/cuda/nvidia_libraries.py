"""NVIDIA's libraries from its packages on the package index, found wherever they are on `sys.path`.

Importing such a package loads nothing, and the dynamic linker does not look into it. ONNX Runtime looks beside its own
package only. What was loaded once is found by its name from then on.
"""

from __future__ import annotations

import contextlib
import ctypes
from importlib.util import find_spec
from pathlib import Path
from typing import Final

# What ONNX Runtime needs on CUDA, each after those that it needs itself. cuDNN finds its own parts.
LIBRARIES: Final = ("cudart", "nvrtc", "cublasLt", "cublas", "curand", "cufft", "cudnn")


def library_paths() -> list[Path]:
    """Return the paths of those of `LIBRARIES` that packages hold, in the order in which they can be loaded."""
    package = find_spec("nvidia")
    folders = [Path(folder) for folder in (package.submodule_search_locations or ())] if package is not None else []
    return [path for name in LIBRARIES for folder in folders for path in sorted(folder.glob(f"*/lib/lib{name}.so.*"))]


def load_nvidia_libraries() -> None:
    """Load the libraries; what cannot be loaded, is reported by the library that needs it."""
    for path in library_paths():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(path))
