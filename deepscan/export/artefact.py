"""From weights to an artefact on the disk: the ONNX file with its record inside, and the manifest beside it."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx

from deepscan.errors import OutputError
from deepscan.export.half_weights import store_exact_halves
from deepscan.export.onnx_from_module import OPSET, onnx_from_module
from deepscan.export.wrappers import ArtefactGraph
from deepscan.models.checkpoints import load_weights
from deepscan.models.registry import detector
from deepscan.runtime.artefacts import METADATA_PREFIX, Manifest, manifest_name
from deepscan.runtime.replacing import replace_files

TOOLS = ("deepscan", "torch", "onnx", "onnxscript")


def export_artefact(name: str, weights: Path, folder: Path) -> Manifest:
    """Export a detector as `folder`/`name`.onnx with `name`.manifest.json beside it.

    Args:
        name: of the detector.
        weights: its safetensors file.
        folder: is made if it is missing; files of these names are replaced.

    Returns:
        What was written into the manifest.

    Raises:
        UsageError: there is no such detector.
        ModelError: the weights are not that detector's.
        OutputError: the files cannot be written.
    """
    chosen = detector(name)
    spec = chosen.spec
    network = chosen.build()
    weights_sha256 = load_weights(network, weights)
    model = onnx_from_module(ArtefactGraph(network, spec), (spec.size, spec.size, 3), input_name="faces")
    store_exact_halves(model)
    onnx.checker.check_model(model, full_check=True)
    tools = {"python": platform.python_version(), **{tool: version(tool) for tool in TOOLS}}
    manifest = Manifest(
        spec=spec,
        file=f"{name}.onnx",
        sha256="",
        size_bytes=0,
        weights_file=weights.name,
        weights_sha256=weights_sha256,
        precision="fp32",
        opset=OPSET,
        tools=tools,
    )
    _embed(model, manifest)
    data = model.SerializeToString(deterministic=True)
    manifest = msgspec.structs.replace(manifest, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    record = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_files({folder / manifest.file: [data], folder / manifest_name(name): [record]})
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to ({error.strerror}): choose another --out.") from error
    return manifest


def _embed(model: onnx.ModelProto, manifest: Manifest) -> None:
    """Put the record into the ONNX metadata, under keys that begin with `deepscan.`."""
    values = {
        "spec": manifest.spec.to_json(),
        "weights_sha256": manifest.weights_sha256,
        "precision": manifest.precision,
        "opset": str(manifest.opset),
        "tools": msgspec.json.encode(manifest.tools).decode(),
    }
    onnx.helper.set_model_props(model, {f"{METADATA_PREFIX}{key}": value for key, value in values.items()})
