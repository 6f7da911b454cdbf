"""The two Python packages of TensorRT, which have the same interface, and the GPU of this machine."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from deepscan.errors import MachineError
from deepscan.installing import install_extra, installed_version
from deepscan.runtime.backends.tensorrt.engine_store import FLAVORS, TITLES, Flavor, Target
from deepscan.runtime.system.machine import CUDA_DRIVER, gpu_driver_version, nvidia_gpus

MODULES: Final[dict[Flavor, str]] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
# Suffixes of the distributions that may hold a package: the general one, and those for one version of CUDA.
DISTRIBUTION_SUFFIXES: Final = ("", "-cu13", "-cu12")
KEPT: Final = 200  # latest messages
LOADING: Final = threading.Lock()
# Part of messages of both packages that only tell that there is no driver.
NO_DRIVER: Final = "cudaError 35"
# TensorRT's source files, and its error codes.
NOISE: Final = re.compile(r"\[\w+\.cpp::\w+::\d+\]\s*|\.?\s*\bIn \w+ at /_src/[^\s)]+|\bError Code \d+:\s*")


@dataclass(frozen=True, slots=True)
class Message:
    """A logged message of TensorRT, an error or a warning."""

    is_error: bool
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """One of the two packages, loaded.

    Attributes:
        flavor: name of the package.
        module: the Python module.
        version: exact version, which engines depend on.
        logger: logger of the process; the package ignores any later one.
        messages: latest warnings and errors. To collect those of one call, clear it before.
        lock: lock to hold from clearing `messages` to reading them.
    """

    flavor: Flavor
    module: Any
    version: str
    logger: Any
    messages: deque[Message]
    lock: threading.Lock

    @property
    def title(self) -> str:
        """Name and version, as shown."""
        return f"{TITLES[self.flavor]} {self.version}"

    def capabilities(self) -> tuple[str, ...]:
        """Return the compute capabilities that the package can build for on any machine; none for `tensorrt`."""
        known = getattr(self.module, "ComputeCapability", None)
        names = known.__members__ if known else ()
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in names if name.startswith("SM"))


def is_installed(flavor: Flavor) -> bool:
    """Tell whether a package is installed, without loading its libraries."""
    return importlib.util.find_spec(MODULES[flavor]) is not None


def installed_flavors() -> tuple[Flavor, ...]:
    """Return which packages are installed, the preferred one first."""
    return tuple(flavor for flavor in FLAVORS if is_installed(flavor))


def package_version(flavor: Flavor) -> str | None:
    """Return the version of an installed package without loading it; None where its metadata does not tell."""
    names = (f"{flavor}{suffix}" for suffix in DISTRIBUTION_SUFFIXES)
    return next((found for name in names if (found := installed_version(name)) is not None), None)


def load_package(flavor: Flavor) -> Package:
    """Load a package, once per process, from any thread.

    Raises:
        MachineError: it is not installed, or its libraries cannot be loaded.
    """
    with LOADING:
        return _loaded(flavor)


@cache
def _loaded(flavor: Flavor) -> Package:
    try:
        module = importlib.import_module(MODULES[flavor])
    except (ImportError, OSError) as error:
        raise MachineError(f"{TITLES[flavor]} cannot be loaded ({error}): run `{install_extra(flavor)}`.") from error
    messages: deque[Message] = deque(maxlen=KEPT)
    return Package(flavor, module, str(module.__version__), _logger(module, messages), messages, threading.Lock())


def _logger(module: Any, messages: deque[Message]) -> Any:
    levels = module.ILogger.Severity

    class Logger(module.ILogger):  # type: ignore[misc]
        """Logger that keeps warnings and errors, and prints nothing."""

        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, text: str) -> None:
            if int(severity) <= int(levels.WARNING):
                messages.append(Message(int(severity) <= int(levels.ERROR), text))

    return Logger()


def cleaned(text: str, *, without_gpu: bool) -> str:
    """Return a message of TensorRT in one line, without its noise.

    Args:
        text: the message.
        without_gpu: leave out lines that only tell that this machine has no driver.
    """
    lines = [line for line in text.splitlines() if not (without_gpu and NO_DRIVER in line)]
    return " ".join(NOISE.sub("", " ".join(lines)).split()).rstrip(".")


def distinct_texts(messages: Iterable[Message], *, errors: bool, without_gpu: bool) -> tuple[str, ...]:
    """Return the errors or the warnings among messages, in order and without repetitions; see `cleaned`."""
    texts = (cleaned(message.text, without_gpu=without_gpu) for message in messages if message.is_error == errors)
    return tuple(dict.fromkeys(text for text in texts if text))


# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
MAJOR, MINOR = 75, 76


def present_target() -> Target | None:
    """Describe the first NVIDIA GPU that this process may use; None without one."""
    gpus = nvidia_gpus()
    if not gpus:
        return None
    driver, device = ctypes.CDLL(CUDA_DRIVER), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), 0)
    digits = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        digits.append(str(value.value))
    return Target(compute_capability=".".join(digits), gpu=gpus[0].name, driver=gpu_driver_version() or "unknown")
