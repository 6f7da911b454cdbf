"""`deepscan doctor`: what this machine can do, what is missing, and the command that adds it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepscan.installing import RUNTIME, gpu_runtime, install_extra, installed_version, replace_packages

if TYPE_CHECKING:
    from rich.console import Console

INDENT = 5
# Pairs of packages that install the same module and break each other. deepscan needs the second; of ONNX Runtime only
# where there is a GPU.
RIVALS = (("onnxruntime", "onnxruntime-gpu"), ("opencv-python", "opencv-python-headless"))
# What cuts faces out of frames that NVDEC leaves on the GPU.
DEVICE_FRAMES = ("cuda-python", "nvidia-cuda-nvrtc")


@dataclass(frozen=True)
class Finding:
    """One line of the report: a fact, whether it is good, and the command that would improve it."""

    subject: str
    good: bool
    fact: str
    remedy: str = ""


def doctor() -> None:
    """Show what this machine can do, and how to add what is missing."""
    from rich.console import Console
    from rich.text import Text

    from deepscan.cli.result_table import line_width, wrapped

    console = Console()
    width = line_width(console)
    findings = _findings()
    for finding in findings:
        mark = Text("yes", "green") if finding.good else Text("no ", "yellow")
        console.print(Text.assemble(mark, f"  {finding.subject}"), soft_wrap=True)
        for line in wrapped(finding.fact, None if width is None else max(1, width - INDENT)) if finding.fact else ():
            console.print(Text(" " * INDENT + line), soft_wrap=True)
    _say_remedies(console, findings)
    console.print(f"Scans run on: {_device()}", highlight=False)


def _say_remedies(console: Console, findings: list[Finding]) -> None:
    """Print the commands that add what is missing, each on one line so that it can be copied."""
    from rich.text import Text

    remedies = [(finding.subject, finding.remedy) for finding in findings if finding.remedy]
    if remedies:
        console.print("To add what is missing:", highlight=False)
    for subject, remedy in remedies:
        console.print(Text(f"  {subject}: {remedy}"), soft_wrap=True)


def _device() -> str:
    from deepscan.runtime.backends.devices import resolve_device
    from deepscan.runtime.system.machine import cpu_count
    from deepscan.wording import counted

    return "CUDA" if resolve_device("auto") == "cuda" else f"CPU, {counted(cpu_count(), 'processor')}"


def _findings() -> list[Finding]:
    from deepscan.runtime.media.pyav_container import ffmpeg_versions

    versions = ffmpeg_versions()
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items() if name.startswith("lib"))
    return [
        Finding("FFmpeg", True, f"{versions['FFmpeg']} in PyAV {versions['PyAV']} ({libraries})"),
        _onnxruntime(),
        *_gpu(),
        _tensorrt(),
        _package("torch", "for `deepscan weights add`, `deepscan export`, --backend torch", "export"),
        _package("openvino", "for --backend openvino, on the CPU", "openvino"),
        *_saved_choices(),
        *_profiles(),
        *_rivals(),
    ]


def _onnxruntime() -> Finding:
    from deepscan.runtime.backends.sessions import available_providers, onnxruntime_version

    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in available_providers())
    return Finding("ONNX Runtime", True, f"{onnxruntime_version()}, providers: {providers}")


def _gpu() -> list[Finding]:
    from deepscan.runtime.backends.sessions import PROVIDERS, available_providers
    from deepscan.runtime.media.pyav_container import has_nvdec
    from deepscan.runtime.system.machine import NVDEC_LIBRARY, has_library, mps_runs, nvidia_gpus

    gpus = nvidia_gpus()
    if not gpus:
        return [
            Finding("CUDA", False, "no NVIDIA GPU is visible to a CUDA driver", "install the driver of your GPU"),
            Finding("NVDEC", False, f"needs a GPU; FFmpeg here was built {'with' if has_nvdec() else 'without'} it"),
        ]
    names = ", ".join(f"{gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB)" for gpu in gpus)
    runtime = PROVIDERS["cuda"] in available_providers()
    nvdec = has_nvdec() and has_library(NVDEC_LIBRARY)
    compiler = all(installed_version(name) for name in DEVICE_FRAMES)
    return [
        Finding("CUDA", True, names),
        Finding(
            "ONNX Runtime on CUDA", runtime, "provider found" if runtime else "none", "" if runtime else gpu_runtime()
        ),
        Finding("NVDEC", nvdec, "driver and FFmpeg have it" if nvdec else "driver or FFmpeg lack it: the CPU decodes"),
        Finding(
            "Frames on the GPU",
            nvdec and compiler,
            f"{' and '.join(DEVICE_FRAMES)}: {'installed' if compiler else 'not both are installed'}",
            "" if compiler else install_extra("cuda"),
        ),
        Finding(
            "MPS",
            mps := mps_runs(),
            "runs: processes on one GPU compute side by side" if mps else "processes on one GPU compute by turns",
            "" if mps else "nvidia-cuda-mps-control -d",
        ),
    ]


def _tensorrt() -> Finding:
    names = ("tensorrt", "tensorrt-rtx", "cuda-python")
    found = [f"{name} {number}" for name in names if (number := installed_version(name))]
    fact = f"{', '.join(found) or 'not installed'}, for `deepscan export --engine` and --backend tensorrt"
    return Finding("TensorRT", bool(found), fact, "" if found else install_extra("tensorrt"))


def _package(name: str, purpose: str, extra: str) -> Finding:
    number = installed_version(name)
    fact = f"{number}, {purpose}" if number else f"not installed; {purpose}"
    return Finding(name, number is not None, fact, "" if number else install_extra(extra))


def _saved_choices() -> list[Finding]:
    """Return the choices that `deepscan bench --save` saved, and whether they hold for this machine."""
    from deepscan.runtime.backends.saved_choices import saved_choices
    from deepscan.runtime.system.machine import environment

    findings = []
    for path, choice in saved_choices():
        holds = choice.machine == environment()
        reason = "" if holds else "; was measured with other versions or elsewhere, so it is not taken"
        fact = f"{choice.backend} {choice.precision}, {choice.items_per_second:.3g}/s, saved by bench in {path}{reason}"
        findings.append(Finding(f"auto for {choice.file} on {choice.device}", holds, fact))
    return findings


def _profiles() -> list[Finding]:
    """Return the calibration profiles that scans apply by themselves."""
    from deepscan.runtime.artifacts.profile_store import damaged_profiles, installed_profiles
    from deepscan.wording import printable

    found = [
        Finding(f"calibration of {printable(each.detector)}", True, printable(str(each)))
        for each in installed_profiles()
    ]
    damaged = [
        Finding("calibration", False, f"{path} cannot be read", f"rm {shlex.quote(str(path))}")
        for path in damaged_profiles()
    ]
    return found + damaged


def _rivals() -> list[Finding]:
    from deepscan.runtime.system.machine import nvidia_gpus

    return [
        Finding(
            f"{one} or {other}",
            False,
            "both are installed and break each other",
            replace_packages((one, other), one if one == RUNTIME and not nvidia_gpus() else other),
        )
        for one, other in RIVALS
        if installed_version(one) and installed_version(other)
    ]
