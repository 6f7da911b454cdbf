"""Artifacts: exported detectors with the record of what they are; anything without that record is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import msgspec

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.weights_store import HASH_DIGITS, find_installed
from deepscan.spec import DetectorSpec, spec_from_json

Precision = Literal["fp32", "fp16", "int8"]
Form = Literal["3d", "2d"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
Activations = Literal["affine", "symmetric"]
EMBEDDED = ("lite",)
METADATA_PREFIX = "deepscan."
HALF_SUFFIX = ".half"  # of the names of weights that are stored in float16, being exact in it


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the ranges of a quantized artifact come from.

    Attributes:
        method: how a range was chosen from what was seen.
        activations: `affine` is uint8 with a zero point, `symmetric` int8 around zero, which TensorRT wants.
        items, sha256, seed: number of crops or clips that were looked at, hash of their pixels, seed of their choice.
        kept: names of the layers that were left in higher precision because they hurt most.
    """

    method: CalibrationMethod
    activations: Activations
    items: int
    sha256: str
    seed: int
    kept: tuple[str, ...]


class WeightsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of safetensors in the artifact's own folder: the weights of the network that it was made from."""

    file: str
    sha256: str

    def __post_init__(self) -> None:
        """Refuse names that lead elsewhere."""
        if Path(self.file).name != self.file:
            raise ValueError(f"{self.file!r} is no name of a file")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artifact is; written beside it and, except for its own hash and size, into the ONNX metadata.

    Attributes:
        schema: version of this record's format.
        file, sha256, size_bytes: name, hash and size of the ONNX file.
        weights_file, weights_sha256: name and hash of the file the weights came from.
        network_weights: the file beside this one that the torch backend takes the weights from; None where there is
            none.
        trained: False where the weights are random, so that scores mean nothing.
        precision: of the graph's arithmetic.
        form: of a clip detector's convolutions; None where there is one form only.
        form_reason: why this form, in a sentence.
        calibration: where the ranges of an int8 artifact come from; None for others.
        parity_loss: differences above the budget that were accepted, in words; empty within the budget.
        opset: version of the ONNX operator set.
        tools: version of everything that took part in the export, by name.
    """

    schema: Literal[3] = 3
    spec: DetectorSpec
    file: str
    sha256: str
    size_bytes: int
    weights_file: str
    weights_sha256: str
    trained: bool
    precision: Precision
    form: Form | None
    form_reason: str
    calibration: CalibrationRecord | None
    parity_loss: str
    opset: int
    tools: dict[str, str]
    network_weights: WeightsFile | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A detector ready to be loaded by a backend.

    Attributes:
        manifest: its record.
        model: the ONNX file's bytes.
        folder: where the file lies, and its weights beside it; None inside the package, or before it is written.
    """

    manifest: Manifest
    model: bytes
    folder: Path | None = None

    def __repr__(self) -> str:
        return f"Artifact({self.manifest.file}, {self.manifest.precision}, {len(self.model)} bytes)"


def embedded_manifest(name: str) -> Manifest:
    """Return the record of a detector that comes with the package."""
    return _manifest((files("deepscan") / "assets" / manifest_name(name)).read_bytes(), f"{name}.onnx")


def load_artifact(name: str) -> Artifact:
    """Load an embedded detector by name, an artifact by the path of its .onnx file, or one from the weights store.

    The name of a detector whose weights were added may have the first digits of their hash behind an @, to take others
    than the latest.

    Raises:
        UsageError: no detector has that name.
        ModelError: there is none of that name, it has no record, or file and record disagree.
    """
    # It takes long to import, and a supervisor needs the records alone.
    from deepscan.runtime.artifacts.graph_index import parsed_model

    manifest, file, source = _found(name)
    with _named_when_unreadable():
        model = file.read_bytes()
    _refuse_changed(hashlib.sha256(model).hexdigest(), manifest, source)
    metadata = {entry.key: entry.value for entry in parsed_model(model, source=source).metadata_props}
    embedded = metadata.get(f"{METADATA_PREFIX}spec")
    if embedded is None:
        raise ModelError(f"{source} carries no detector spec: only models that deepscan exported can be used.")
    inside = (metadata.get(f"{METADATA_PREFIX}weights_sha256"), metadata.get(f"{METADATA_PREFIX}trained"))
    beside = (manifest.weights_sha256, str(manifest.trained).lower())
    if spec_from_json(embedded, source=source) != manifest.spec or inside != beside:
        raise ModelError(f"The record inside {source} is not the one in its manifest: export the detector again.")
    embedded_name = name.partition("@")[0] in EMBEDDED
    return Artifact(manifest, model, None if embedded_name else Path(str(file)).parent)


def read_manifest(name: str) -> Manifest:
    """Read the record of an artifact, and make sure that the artifact is the one it describes, without loading it.

    Names and errors are those of `load_artifact`.
    """
    manifest, file, source = _found(name)
    with _named_when_unreadable(), file.open("rb") as opened:
        _refuse_changed(hashlib.file_digest(opened, "sha256").hexdigest(), manifest, source)  # type: ignore[arg-type]
    return manifest


def _found(name: str) -> tuple[Manifest, Traversable, str]:
    """Return the record of an artifact, its file, and what messages call it."""
    detector, at, digits = name.partition("@")
    path: Traversable
    if detector in EMBEDDED:
        _refuse_other_weights(detector, at, digits)
        path = files("deepscan") / "assets" / f"{detector}.onnx"
        return embedded_manifest(detector), path, detector
    path = Path(name)
    if path.suffix == ".onnx":
        refuse_missing_artifact(name)
    else:
        path = find_installed(name).model_path
    with _named_when_unreadable():
        record = path.with_name(manifest_name(path.stem)).read_bytes()
    return _manifest(record, str(path)), path, str(path)


@contextmanager
def _named_when_unreadable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{error.filename} cannot be read ({error.strerror}): an artifact is an .onnx file and its manifest."
        raise ModelError(message) from error


def refuse_missing_artifact(name: str) -> None:
    """Raise a ModelError if the path of an exported detector does not exist, or is a folder."""
    path = Path(name)
    try:
        if path.is_dir():
            raise ModelError(f"{name} is a folder: give the .onnx file in it.")
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{name} does not exist: check the path of the exported detector.") from error
    except (OSError, ValueError):  # the reader says more
        return


def _refuse_changed(sha256: str, manifest: Manifest, source: str) -> None:
    if sha256 != manifest.sha256:
        raise ModelError(
            f"{source} is not the file that its manifest describes: it was changed or cut; export it again."
        )


def _refuse_other_weights(detector: str, at: str, digits: str) -> None:
    weights = embedded_manifest(detector).weights_sha256
    if at and not (digits and weights.startswith(digits)):
        raise ModelError(
            f"The weights of {detector}, which come with deepscan, begin with {weights[:HASH_DIGITS]} and not with "
            f"{digits!r}: leave out the @."
        )


def manifest_name(stem: str) -> str:
    """Return the file name of the record that belongs to `stem`.onnx."""
    return f"{stem}.manifest.json"


def _manifest(record: bytes, source: str) -> Manifest:
    try:
        return msgspec.json.decode(record, type=Manifest)
    except msgspec.DecodeError as error:
        raise ModelError(f"The manifest of {source} cannot be read ({error}): export the detector again.") from error
