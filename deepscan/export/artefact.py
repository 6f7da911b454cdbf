"""From weights to an artefact on the disk: the ONNX file with its record inside, and the manifest beside it."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import onnx
from torch import nn

from deepscan.errors import OutputError
from deepscan.export.forms import FormChoice, exported
from deepscan.export.half_weights import store_exact_halves
from deepscan.export.onnx_from_module import OPSET, refuse_invalid
from deepscan.models.checkpoints import load_state, load_weights
from deepscan.models.registry import BUILDERS
from deepscan.models.specs import spec_of
from deepscan.runtime.artefacts import METADATA_PREFIX, Manifest, manifest_name
from deepscan.runtime.replacing import replace_files
from deepscan.runtime.weights_store import WEIGHTS, find_installed
from deepscan.spec import DetectorSpec

TOOLS = ("deepscan", "torch", "onnx", "onnxscript")


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """Where the weights of an artefact come from.

    Attributes:
        file: its name.
        sha256: of the file.
        trained: False for random weights.
    """

    file: str
    sha256: str
    trained: bool = True


def export_artefact(
    name: str, weights: Path | None, folder: Path, *, variant: str | None = None, form: FormChoice = "auto"
) -> Manifest:
    """Export a detector as `folder`/`name`.onnx with `name`.manifest.json beside it.

    Args:
        name: of the detector.
        weights: its checkpoint; see `deepscan.models.checkpoints` for what can be read. None takes those that were
            added on this machine.
        folder: is made if it is missing; files of these names are replaced.
        variant: whose training of the detector it is, where it is not the authors'.
        form: of a clip detector's convolutions; `auto` takes what is faster here.

    Returns:
        What was written into the manifest.

    Raises:
        UsageError: there is no such detector, or it has not several forms.
        ModelError: the weights are not that detector's, or none were added.
        OutputError: the files cannot be written.
    """
    spec = spec_of(name, variant)
    network = BUILDERS[spec.name]()
    if weights is None:
        entry = find_installed(spec.name)
        load_state(network, entry.folder / WEIGHTS)
        origin = WeightsOrigin(entry.record.file, entry.record.sha256, entry.record.trained)
    else:
        origin = WeightsOrigin(weights.name, load_weights(network, weights, name=spec.name).sha256)
    return write_artefact(network, spec, origin, folder, form=form)


def write_artefact(
    network: nn.Module, spec: DetectorSpec, origin: WeightsOrigin, folder: Path, *, form: FormChoice = "auto"
) -> Manifest:
    """Export a network that has its weights; see `export_artefact`."""
    made = exported(network, spec, form)
    model = made.model
    store_exact_halves(model)
    refuse_invalid(model)
    tools = {"python": platform.python_version(), **{tool: version(tool) for tool in TOOLS}}
    manifest = Manifest(
        spec=spec,
        file=f"{spec.name}.onnx",
        sha256="",
        size_bytes=0,
        weights_file=origin.file,
        weights_sha256=origin.sha256,
        trained=origin.trained,
        precision="fp32",
        form=made.form,
        form_reason=made.reason,
        calibration=None,
        parity_loss="",
        opset=OPSET,
        tools=tools,
    )
    _embed(model, manifest)
    data = model.SerializeToString(deterministic=True)
    manifest = msgspec.structs.replace(manifest, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    record = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_files({folder / manifest.file: [data], folder / manifest_name(spec.name): [record]})
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to ({error.strerror}): choose another place.") from error
    return manifest


def _embed(model: onnx.ModelProto, manifest: Manifest) -> None:
    """Put the record into the ONNX metadata, under keys that begin with `deepscan.`."""
    values = {
        "spec": manifest.spec.to_json(),
        "weights_sha256": manifest.weights_sha256,
        "trained": str(manifest.trained).lower(),
        "precision": manifest.precision,
        "opset": str(manifest.opset),
        "tools": msgspec.json.encode(manifest.tools).decode(),
    }
    onnx.helper.set_model_props(model, {f"{METADATA_PREFIX}{key}": value for key, value in values.items()})
