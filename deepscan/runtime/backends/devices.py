"""The devices of a scan: `cpu`, `cuda`, `cuda:0,1`, `cuda:all`. Nothing here loads a library that computes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from deepscan.errors import MachineError, UsageError
from deepscan.installing import gpu_runtime
from deepscan.runtime.system.machine import Device, DeviceChoice, nvidia_gpus


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a scan.

    Attributes:
        kind: a CPU, or NVIDIA GPUs.
        gpus: numbers of the GPUs, as CUDA counts those that this process may see; none on a CPU.
    """

    kind: Device
    gpus: tuple[int, ...] = ()

    def __str__(self) -> str:
        if len(self.gpus) < 2:
            return self.kind
        return f"{self.kind}:{','.join(map(str, self.gpus))}"


def parse_gpus(text: str) -> tuple[DeviceChoice, tuple[int, ...] | None]:
    """Parse the value of `--device`, such as `cuda:0,1`.

    Returns:
        `auto`, `cpu` or `cuda`; and the numbers of the GPUs, each once in ascending order: none where the text has
        none, None for all.

    Raises:
        UsageError: the text names no device.
    """
    kind, colon, numbers = text.partition(":")
    if not colon and kind in get_args(DeviceChoice):
        return cast("DeviceChoice", kind), ()
    if kind == "cuda" and numbers == "all":
        return "cuda", None
    if kind == "cuda" and re.fullmatch(r"\d{1,4}(,\d{1,4})*", numbers, re.ASCII):
        return "cuda", tuple(sorted({int(number) for number in numbers.split(",")}))
    raise UsageError(f"--device {text!r} is not known: use auto, cpu, cuda, cuda:all, or cuda:0,1 with GPU numbers.")


def resolve_device(choice: DeviceChoice) -> Device:
    """Return where detectors run: `auto` is CUDA where there is a GPU and ONNX Runtime's provider for it.

    Raises:
        MachineError: CUDA was asked for and is not available.
    """
    if choice == "cpu":
        return "cpu"
    gpus, built = nvidia_gpus(), onnxruntime_has_cuda()
    if gpus and built:
        return "cuda"
    if choice == "auto":
        return "cpu"
    if not gpus:
        raise MachineError(
            "--device cuda cannot be used (no NVIDIA GPU is visible to the CUDA driver): run `deepscan doctor`, or use "
            "--device cpu."
        )
    raise MachineError(
        "--device cuda needs ONNX Runtime with CUDA, which finds the faces whatever the --backend, and this one was "
        f"built without: run `{gpu_runtime()}`, or use --device cpu."
    )


def onnxruntime_has_cuda() -> bool:
    """Tell whether the installed ONNX Runtime was built with CUDA, without importing it: its library lies there."""
    found = find_spec("onnxruntime")
    folders = found.submodule_search_locations if found is not None else None
    return any(any(Path(folder).glob("capi/*onnxruntime_providers_cuda.*")) for folder in folders or ())


def resolve_devices(text: str) -> Devices:
    """Return the devices that the value of `--device` means here; a GPU without a number is the first one.

    Raises:
        UsageError: the text names no device.
        MachineError: a GPU was asked for and is not available.
    """
    kind, numbers = parse_gpus(text)
    device = resolve_device(kind)
    if device == "cpu":
        return Devices("cpu")
    there = len(nvidia_gpus())
    gpus = tuple(range(there)) if numbers is None else numbers or (0,)
    missing = [number for number in gpus if number >= there]
    if missing:
        raise MachineError(
            f"--device {text} names GPU {missing[0]}, but CUDA sees {there} here: run `deepscan doctor`, or use "
            "cuda:all."
        )
    return Devices("cuda", gpus)


def visible_gpu(number: int, visible: str | None) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES for a process that is to see one GPU alone.

    Args:
        number: of the GPU among those that this process sees.
        visible: its value in this process; None where it is not set.
    """
    names = [name.strip() for name in (visible or "").split(",") if name.strip()]
    return names[number] if number < len(names) else str(number)
