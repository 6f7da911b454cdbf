from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deepscan.errors import MachineError, ModelError, UsageError
from deepscan.models.lite import LITE
from deepscan.runtime.artifacts.artifacts import Artifact, embedded_manifest, load_artifact, refuse_missing_artifact
from deepscan.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from deepscan.runtime.backends.sessions import PROVIDERS, Session, available_providers
from deepscan.spec import spec_from_json

WEIGHTS_SHA256 = "f9f34f5a382d251e66b213e67c67ee183eaeb52f26664f8a78cd8983e835e96f"
ASSETS = Path(str(files("deepscan") / "assets"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the embedded artifact that a test may spoil."""
    for name in ("lite.onnx", "lite.manifest.json"):
        shutil.copyfile(ASSETS / name, tmp_path / name)
    return tmp_path / "lite.onnx"


def artifact_of(model: onnx.ModelProto, path: Path, *, embedded: str | None = LITE.to_json()) -> Artifact:
    """Write any graph with a manifest that belongs to it, a spec inside, and load it."""
    record = json.loads((ASSETS / "lite.manifest.json").read_text())
    inside = {"spec": embedded or "", "weights_sha256": record["weights_sha256"], "trained": "true"}
    helper.set_model_props(model, {f"deepscan.{name}": value for name, value in inside.items() if embedded})
    data = model.SerializeToString()
    path.write_bytes(data)
    record |= {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    path.with_name(f"{path.stem}.manifest.json").write_text(json.dumps(record))
    return load_artifact(str(path))


def graph(
    name: str = "faces", kind: int = TensorProto.UINT8, side: int = 224, output: str = "logit", inputs: int = 1
) -> onnx.ModelProto:
    """Make a graph that returns the mean of its input, as a detector of that form would return a logit."""
    nodes = [
        helper.make_node("Cast", [name], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["wide", "axes"], [output], keepdims=0),
    ]
    taken = [
        helper.make_tensor_value_info(name if number == 0 else f"more{number}", kind, ["N", side, side, 3])
        for number in range(inputs)
    ]
    given = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N"])]
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    body = helper.make_graph(nodes, "mean", taken, given, [axes])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def assert_one_sentence(error: pytest.ExceptionInfo[Exception]) -> None:
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_the_embedded_detector_loads_and_its_record_says_what_it_is() -> None:
    artifact = load_artifact("lite")
    manifest = artifact.manifest
    assert manifest == embedded_manifest("lite")
    assert manifest.spec == LITE
    assert (manifest.file, manifest.precision, manifest.opset) == ("lite.onnx", "fp32", 18)
    assert (manifest.weights_file, manifest.weights_sha256) == ("lite2.safetensors", WEIGHTS_SHA256)
    assert manifest.trained
    assert manifest.sha256 == hashlib.sha256(artifact.model).hexdigest()
    assert manifest.size_bytes == len(artifact.model)
    assert set(manifest.tools) == {"python", "deepscan", "torch", "onnx", "onnxscript"}
    assert all(manifest.tools.values())


def test_an_artifact_given_by_its_path_is_the_same(copied: Path) -> None:
    artifact = load_artifact(str(copied))
    assert artifact.model == load_artifact("lite").model
    assert artifact.manifest == embedded_manifest("lite")


def test_a_printed_artifact_is_short() -> None:
    assert repr(load_artifact("lite")) == f"Artifact(lite.onnx, fp32, {(ASSETS / 'lite.onnx').stat().st_size} bytes)"


def test_the_onnx_metadata_repeats_the_manifest() -> None:
    artifact = load_artifact("lite")
    model = onnx.load_model_from_string(artifact.model)
    held = {entry.key.removeprefix("deepscan."): entry.value for entry in model.metadata_props}
    assert spec_from_json(held.pop("spec"), source="lite.onnx") == artifact.manifest.spec
    assert json.loads(held.pop("tools")) == artifact.manifest.tools
    assert held == {"weights_sha256": WEIGHTS_SHA256, "trained": "true", "precision": "fp32", "opset": "18"}
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]


def test_the_embedded_file_names_no_path_of_the_machine_it_was_made_on() -> None:
    model = onnx.load_model_from_string(load_artifact("lite").model)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # weights may hold any bytes
    text = model.SerializeToString() + (ASSETS / "lite.manifest.json").read_bytes()
    assert [part for part in (b"/work", b"/home", b"/tmp", b"/root", b".py", b"site-packages") if part in text] == []


def test_a_changed_byte_is_refused(copied: Path) -> None:
    data = bytearray(copied.read_bytes())
    data[len(data) // 2] ^= 1
    copied.write_bytes(data)
    with pytest.raises(ModelError, match=r"lite\.onnx is not the file that its manifest describes") as error:
        load_artifact(str(copied))
    assert_one_sentence(error)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_file_that_was_cut_is_refused(copied: Path, kept: int) -> None:
    copied.write_bytes(copied.read_bytes()[:kept])
    with pytest.raises(ModelError, match="changed or cut") as error:
        load_artifact(str(copied))
    assert_one_sentence(error)


@pytest.mark.parametrize("name", ["lite.onnx", "lite.manifest.json"])
def test_an_artifact_of_which_one_file_is_missing_is_refused(copied: Path, name: str) -> None:
    copied.with_name(name).unlink()
    said = {"lite.onnx": "does not exist", "lite.manifest.json": "cannot be read .*manifest"}[name]
    with pytest.raises(ModelError, match=f"{name} {said}") as error:
        load_artifact(str(copied))
    assert_one_sentence(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"schema": 3,\n  "spec"', b'"schema": 1,\n  "spec"'),
        (b'"spec": {\n    "schema": 2', b'"spec": {\n    "schema": 7'),
        (b'"precision": "fp32"', b'"precision": "fp8"'),
        (b'"opset": 18', b'"opset": "18"'),
        (b'"opset": 18,', b""),
        (b'"opset"', b'"surprise": 1, "opset"'),
        (b'"frames": 1,', b'"frames": 32,'),
        (b"{", b"\xff{"),
        (b"}\n", b""),
    ],
)
def test_a_manifest_of_another_form_is_refused(copied: Path, old: bytes, new: bytes) -> None:
    manifest = copied.with_name("lite.manifest.json")
    record = manifest.read_bytes()
    assert old in record
    manifest.write_bytes(record.replace(old, new))
    with pytest.raises(ModelError, match=r"The manifest of .*lite\.onnx cannot be read") as error:
        load_artifact(str(copied))
    assert_one_sentence(error)


@pytest.mark.parametrize("name", ["nothing", "", "Lite", "nothing@12"])
def test_an_unknown_name_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(UsageError, match=rf"No detector is called {name.partition('@')[0]!r}.*: use one of lite, "):
        load_artifact(name)


def test_a_known_name_is_refused_with_the_way_to_add_its_weights() -> None:
    said = "No weights of a detector called 'ftcn' are installed: .*`deepscan weights add FILE`"
    with pytest.raises(ModelError, match=said) as error:
        load_artifact("ftcn")
    assert_one_sentence(error)


def test_the_embedded_detector_may_be_named_with_the_hash_of_its_weights() -> None:
    plain = load_artifact("lite")
    digits = plain.manifest.weights_sha256[:12]
    assert load_artifact(f"lite@{digits}").manifest == plain.manifest
    for other in ("lite@", "lite@0000"):
        with pytest.raises(ModelError, match=f"weights of lite, which come with deepscan, begin with {digits} and not"):
            load_artifact(other)


def test_a_graph_of_the_right_form_runs(tmp_path: Path) -> None:
    backend = OnnxRuntimeBackend(artifact_of(graph(), tmp_path / "x.onnx"), device="cpu", threads=1, precision="fp32")
    batch = np.stack([np.full((224, 224, 3), value, dtype=np.uint8) for value in (7, 40)])
    assert backend.logits(batch) == pytest.approx([7.0, 40.0], rel=1e-4)
    assert (backend.name, backend.precision) == ("onnxruntime-cpu", "fp32")


def test_a_logit_that_is_no_number_is_an_error_and_not_a_score(tmp_path: Path) -> None:
    model = graph()
    model.graph.node[1].output[0] = "mean"
    model.graph.node.append(helper.make_node("Log", ["mean"], ["logit"]))
    backend = OnnxRuntimeBackend(artifact_of(model, tmp_path / "x.onnx"), device="cpu", threads=1, precision="fp32")
    assert np.isfinite(backend.logits(np.ones((1, 224, 224, 3), dtype=np.uint8))).all()
    with pytest.raises(ModelError, match=r"x\.onnx gave a logit that is not a finite number") as error:
        backend.logits(np.zeros((1, 224, 224, 3), dtype=np.uint8))
    assert_one_sentence(error)


@pytest.mark.parametrize(
    "model",
    [
        graph(name="pictures"),
        graph(kind=TensorProto.FLOAT),
        graph(side=256),
        graph(output="label"),
        graph(inputs=2),
    ],
    ids=["name", "type", "size", "output", "two inputs"],
)
def test_a_graph_that_is_no_such_detector_is_refused_whatever_its_manifest_says(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    artifact = artifact_of(model, tmp_path / "x.onnx")
    with pytest.raises(ModelError, match=r"x\.onnx does not turn uint8 faces \[N, 224, 224, 3\]") as error:
        OnnxRuntimeBackend(artifact, device="cpu", threads=1, precision="fp32")
    assert_one_sentence(error)


def test_a_graph_without_a_spec_inside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="carries no detector spec") as error:
        artifact_of(graph(), tmp_path / "x.onnx", embedded=None)
    assert_one_sentence(error)


def test_a_spec_inside_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    other = LITE.to_json().replace('"mirror":true', '"mirror":false')
    with pytest.raises(ModelError, match="is not the one in its manifest") as error:
        artifact_of(graph(), tmp_path / "x.onnx", embedded=other)
    assert_one_sentence(error)


def test_bytes_that_are_no_onnx_are_refused_though_the_manifest_describes_them(copied: Path) -> None:
    copied.write_bytes(b"not a model")
    manifest = copied.with_name("lite.manifest.json")
    record = json.loads(manifest.read_text()) | {"sha256": hashlib.sha256(b"not a model").hexdigest()}
    manifest.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"lite\.onnx is not an ONNX file") as error:
        load_artifact(str(copied))
    assert_one_sentence(error)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match=r"x\.onnx is not a model that ONNX Runtime can run") as error:
        Session(b"not a model", source="x.onnx", device="cpu", threads=1)
    assert_one_sentence(error)


@pytest.mark.skipif(PROVIDERS["cuda"] in available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_device_that_the_runtime_lacks_is_refused() -> None:
    with pytest.raises(MachineError, match="no CUDAExecutionProvider here") as error:
        Session(load_artifact("lite").model, source="lite.onnx", device="cuda", threads=1)
    assert_one_sentence(error)


def test_an_exported_detector_that_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    (tmp_path / "there.onnx").write_bytes(b"")
    refuse_missing_artifact(str(tmp_path / "there.onnx"))
    with pytest.raises(ModelError, match=r"folder\.onnx is a folder: give the \.onnx file in it"):
        refuse_missing_artifact(str(folder))
    for path in (tmp_path / "gone.onnx", tmp_path / "there.onnx" / "below.onnx"):
        with pytest.raises(ModelError, match=r"\.onnx does not exist: check the path"):
            refuse_missing_artifact(str(path))
