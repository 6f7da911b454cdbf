"""Artifacts from graphs: the ONNX metadata gets the record, and the manifest the hash of the file."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import version

import msgspec
import onnx

from deepscan.export.onnx_from_module import OPSET, refuse_invalid
from deepscan.runtime.artifacts.artifacts import (
    METADATA_PREFIX,
    Artifact,
    CalibrationRecord,
    Form,
    Manifest,
    Precision,
    WeightsFile,
)
from deepscan.spec import DetectorSpec
from deepscan.version import __version__

TOOLS = ("torch", "onnx", "onnxscript")


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """Origin of an artifact's weights: name and hash of their file; `trained` is False for random weights."""

    file: str
    sha256: str
    trained: bool = True


def file_name(spec: DetectorSpec, precision: Precision) -> str:
    """Return the name of a detector's ONNX file."""
    return f"{spec.name}.onnx" if precision == "fp32" else f"{spec.name}-{precision}.onnx"


def packed(
    model: onnx.ModelProto,
    spec: DetectorSpec,
    origin: WeightsOrigin,
    *,
    precision: Precision = "fp32",
    form: Form | None = None,
    form_reason: str = "",
    calibration: CalibrationRecord | None = None,
    parity_loss: str = "",
    network_weights: WeightsFile | None = None,
) -> Artifact:
    """Make a graph that keeps the artifact contract an artifact; the other arguments become fields of its `Manifest`.

    Raises:
        ModelError: the graph is not valid ONNX.
    """
    refuse_invalid(model)
    manifest = Manifest(
        spec=spec,
        file=file_name(spec, precision),
        sha256="",
        size_bytes=0,
        weights_file=origin.file,
        weights_sha256=origin.sha256,
        trained=origin.trained,
        precision=precision,
        form=form,
        form_reason=form_reason,
        calibration=calibration,
        parity_loss=parity_loss,
        opset=OPSET,
        tools={
            "python": platform.python_version(),
            "deepscan": __version__,
            **{tool: version(tool) for tool in TOOLS},
        },
        network_weights=network_weights,
    )
    values = {
        "spec": spec.to_json(),
        "weights_sha256": origin.sha256,
        "trained": str(origin.trained).lower(),
        "precision": precision,
        "opset": str(OPSET),
        "tools": msgspec.json.encode(manifest.tools).decode(),
    }
    onnx.helper.set_model_props(model, {f"{METADATA_PREFIX}{key}": value for key, value in values.items()})
    data = model.SerializeToString(deterministic=True)
    return Artifact(
        msgspec.structs.replace(manifest, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)), data
    )
