"""Export of a detector: ONNX file, manifest and parity report, checked against the original network."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import onnx
import torch
from safetensors.torch import save
from torch import nn

from deepscan.errors import ModelError, OutputError
from deepscan.export.forms import FormChoice, exported, refuse_form
from deepscan.export.half import store_exact_halves
from deepscan.export.half_search import half_precision
from deepscan.export.packing import WeightsOrigin, file_name, packed
from deepscan.export.parity.parity import BUDGETS, ConversionResult, ParityFunction, misses
from deepscan.export.parity.parity_check import ParityCheck, parity_check
from deepscan.export.parity.parity_report import REPORT_TITLE, ParityMiss, ParityReport, readable, report_name
from deepscan.export.parity.samples import Samples, joined, packaged_samples
from deepscan.export.simplify import folded_batch_norm
from deepscan.models.checkpoints.checkpoints import load_weights
from deepscan.models.registry import find_detector
from deepscan.runtime.artifacts.artifacts import (
    METADATA_PREFIX,
    Artifact,
    CalibrationRecord,
    Manifest,
    Precision,
    WeightsFile,
    load_artifact,
    manifest_name,
)
from deepscan.runtime.backends.sessions import onnxruntime_version
from deepscan.runtime.backends.torch_network import network_of
from deepscan.runtime.system.files import atomic_write, holds, json_with, refuse_other_file
from deepscan.spec import DetectorSpec

log = logging.getLogger(__name__)

# Samples of every parity check: enough to reveal a wrong graph, few enough for clips.
PACKAGED_CROPS: Final = 48
PACKAGED_CLIPS: Final = 8
WEIGHTS_MARK: Final = "deepscan"  # in the header of files of weights, which tells them from a user's own


@dataclass(frozen=True, eq=False)
class Quantization:
    """Conversion to int8, which `deepscan.calibration` provides.

    Attributes:
        convert: turns a float32 graph into a Q/DQ graph.
        record: origin of the ranges; the export fills in the nodes that stayed in float32.
    """

    convert: Callable[[onnx.ModelProto, ParityFunction], ConversionResult]
    record: CalibrationRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportSettings:
    """Settings of an export.

    Attributes:
        form: of a clip detector's convolutions; `auto` takes what is faster here.
        for_engine: a TensorRT engine will be built from the artifact.
        quantization: for `int8`.
        samples: real crops or clips for the parity check, besides those that come with the package.
        accept_parity_loss: continue where the parity check finds too large a difference, and record it.
    """

    precision: Precision = "fp32"
    form: FormChoice = "auto"
    for_engine: bool = False
    quantization: Quantization | None = None
    samples: Samples | None = None
    accept_parity_loss: bool = False


@dataclass(frozen=True, eq=False)
class ExportResult:
    """Artifact and parity report as they were written; `steps` has the title and the seconds of each step."""

    artifact: Artifact
    report: ParityReport
    steps: list[tuple[str, float]]


def export_artifact(
    name: str,
    weights: Path | None,
    folder: Path,
    *,
    variant: str | None = None,
    settings: ExportSettings | None = None,
) -> ExportResult:
    """Export a detector as `folder`/`name`.onnx, with its manifest and its parity report beside it.

    `weights` is a checkpoint in a format that `deepscan.models.checkpoints` reads; None takes the weights that were
    added on this machine, or come with the package. The files of an earlier export in the folder are replaced.

    Raises:
        UsageError: there is no such detector, or it has only one form, or a file that deepscan did not write would be
            replaced.
        ModelError: the weights belong to another detector, or none were added.
        ParityMiss: the artifact differs from the original by more than its budget.
        OutputError: the files cannot be written.
    """
    detector = find_detector(name, variant)
    spec = detector.spec
    settings = settings or ExportSettings()
    _refuse_other_files(folder, spec, settings.precision)
    _refuse_unwritable(folder)
    if weights is None:
        known = load_artifact(spec.name)
        network, manifest = network_of(known), known.manifest
        origin = WeightsOrigin(manifest.weights_file, manifest.weights_sha256, manifest.trained)
    else:
        network = detector.build()
        origin = WeightsOrigin(weights.name, load_weights(network, weights, name=spec.name).sha256)
    refuse_form(network, spec.name, settings.form)  # before minutes of work
    tensors, kept = None, None
    if settings.precision != "int8":
        tensors = weights_in_bytes(network)
        kept = WeightsFile(file=weights_name(spec), sha256=hashlib.sha256(tensors).hexdigest())
    made = make_artifact(network, spec, origin, settings, kept=kept)
    store_artifact(made.artifact, folder, report=made.report, weights=tensors)
    return made


def make_artifact(
    network: nn.Module,
    spec: DetectorSpec,
    origin: WeightsOrigin,
    settings: ExportSettings,
    *,
    kept: WeightsFile | None = None,
) -> ExportResult:
    """Export a network with its weights, in evaluation mode, and compare the result with it; see `export_artifact`.

    `kept` is the file beside the artifact that holds the network's weights.

    Raises:
        ModelError: the weights are not trained, or the graph would not be valid.
        ParityMiss: see `export_artifact`.
    """
    steps: list[tuple[str, float]] = []
    with _step("cutting real faces for the parity check", steps):
        samples = _samples(spec, settings.samples)
    with _step(f"running the original on {len(samples.items)} {spec.input_name}", steps):
        check = parity_check(network, spec, samples)
        _refuse_constant(check, origin)
    with _step("tracing the network to ONNX", steps):
        traced = exported(network, spec, settings.form, for_engine=settings.for_engine)
    with _step(f"converting to {settings.precision}", steps):
        converted, calibration = _converted(traced.model, check, settings)
    with _step("comparing with the original", steps):
        parity = check(converted.stand_in or converted.model)
    missed = misses(parity, BUDGETS[settings.precision])
    artifact = packed(
        converted.model,
        spec,
        origin,
        precision=settings.precision,
        form=traced.form,
        form_reason=traced.reason,
        calibration=calibration,
        parity_loss="; ".join(missed),
        network_weights=kept,
    )
    emulated = "" if converted.stand_in is None else ", every half tensor rounded as a GPU does"
    compared = ParityReport(
        detector=spec.name,
        file=artifact.manifest.file,
        sha256=artifact.manifest.sha256,
        weights_sha256=origin.sha256,
        trained=origin.trained,
        precision=settings.precision,
        form=traced.form,
        reference=f"torch {torch.__version__}, float32, CPU",
        executed_by=f"ONNX Runtime {onnxruntime_version()}, CPU{emulated}",
        videos=len(set(samples.videos)),
        samples_sha256=samples.sha256,
        parity=parity,
        budget=BUDGETS[settings.precision],
        misses=missed,
        accepted=bool(missed) and settings.accept_parity_loss,
        kept=converted.notes,
        summary=converted.summary,
    )
    if missed and not settings.accept_parity_loss:
        raise ParityMiss(compared)
    return ExportResult(artifact, compared, steps)


@contextmanager
def _step(title: str, steps: list[tuple[str, float]]) -> Iterator[None]:
    """Log the title of a step, and append it with its duration in seconds when it ends."""
    log.info(title)
    started = time.perf_counter()
    yield
    steps.append((title, time.perf_counter() - started))


def weights_name(spec: DetectorSpec) -> str:
    """Return the name of the file of weights beside the artifacts of a detector, the same for all precisions."""
    return f"{spec.name}.weights.safetensors"


def weights_in_bytes(network: nn.Module) -> bytes:
    """Return the weights of a network as safetensors."""
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, metadata={WEIGHTS_MARK: "weights"})


def store_artifact(
    artifact: Artifact, folder: Path, *, report: ParityReport | None = None, weights: bytes | None = None
) -> Path:
    """Write an artifact, its manifest, its parity report and its weights, all or nothing.

    Returns:
        The path of the ONNX file.

    Raises:
        OutputError: the files cannot be written.
    """
    manifest = artifact.manifest
    stem = Path(manifest.file).stem
    contents = {manifest.file: artifact.model, manifest_name(stem): _json(manifest)}
    if report is not None:
        contents[report_name(stem, ending="json")] = _json(report)
        contents[report_name(stem, ending="md")] = readable(report).encode()
    if manifest.network_weights is not None and weights is not None:
        contents[manifest.network_weights.file] = weights
    try:
        atomic_write({folder / file: [data] for file, data in contents.items()})
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder / manifest.file


def _refuse_other_files(folder: Path, spec: DetectorSpec, precision: Precision) -> None:
    """Refuse to replace files that deepscan did not write before minutes of work, not after."""
    stem = Path(file_name(spec, precision)).stem
    written = {
        weights_name(spec): holds(f'"{WEIGHTS_MARK}"'.encode("ascii")),
        f"{stem}.onnx": holds(f"{METADATA_PREFIX}spec".encode("ascii")),
        manifest_name(stem): json_with(["spec", "sha256", "weights_sha256"]),
        report_name(stem, ending="json"): json_with(["detector", "parity", "weights_sha256"]),
        report_name(stem, ending="md"): holds(f"# {stem}.onnx: {REPORT_TITLE}".encode("ascii")),
    }
    for file, is_ours in written.items():
        refuse_other_file(folder / file, is_ours, advice="choose another folder with --out")


def _refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be written to before minutes of work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder} cannot be written to ({error.strerror}): choose another place.")


def _refuse_constant(check: ParityCheck, origin: WeightsOrigin) -> None:
    """Refuse trained weights whose score does not depend on the picture, such as scales of zero."""
    if not origin.trained:
        return
    lowest, highest = check.reference.min(), check.reference.max()
    if lowest < highest < np.inf and lowest > -np.inf:
        return
    what = "the same score" if lowest == highest else "scores that are no numbers"
    raise ModelError(
        f"{origin.file} makes {check.spec.name} give different {check.spec.input_name} {what}: these are not its "
        "trained weights; get another copy or another training of it."
    )


def _samples(spec: DetectorSpec, given: Samples | None) -> Samples:
    packaged = packaged_samples(spec, count=PACKAGED_CLIPS if spec.kind == "clip" else PACKAGED_CROPS)
    return joined([packaged] if given is None else [packaged, given])


def _converted(
    model: onnx.ModelProto, check: ParityCheck, settings: ExportSettings
) -> tuple[ConversionResult, CalibrationRecord | None]:
    if settings.precision == "fp32":
        store_exact_halves(model)
        return ConversionResult(model, {}, ""), None
    folded = folded_batch_norm(model)
    if settings.precision == "fp16":
        return half_precision(folded, check, check.samples.items), None
    quantization = settings.quantization
    assert quantization is not None
    converted = quantization.convert(folded, check)
    return converted, msgspec.structs.replace(quantization.record, kept=tuple(converted.notes))


def _json(record: Manifest | ParityReport) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
