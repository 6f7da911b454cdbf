from __future__ import annotations

import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from safetensors.numpy import load_file

from deepscan.errors import ModelError, OutputError, UsageError
from deepscan.export import artifact
from deepscan.export.artifact import ExportSettings, export_artifact, make_artifact, store_artifact
from deepscan.export.packing import WeightsOrigin
from deepscan.models import lite
from deepscan.models.checkpoints.checkpoints import load_weights
from deepscan.models.lite import LITE
from deepscan.models.networks.artifact_graph import ArtifactGraph
from deepscan.runtime.artifacts.artifacts import Manifest, load_artifact
from deepscan.runtime.backends.torch_network import network_of
from tests.cli.console import Ran, deepscan
from tests.footage import SWAPPED

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights" / "lite2.safetensors"
GOLDEN = np.load(ROOT / "tests" / "models" / "lite_golden.npz")
EMBEDDED = Path(str(files("deepscan") / "assets" / "lite.onnx"))
BatchFloat = NDArray[np.float32]
WRITTEN = ["lite.manifest.json", "lite.onnx", "lite.parity.json", "lite.parity.md", "lite.weights.safetensors"]
LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export") / "made" / "by export"


@pytest.fixture(scope="module")
def exported(folder: Path) -> Ran:
    """Export `lite` for real."""
    return deepscan("export", "lite", "--weights", WEIGHTS, "--out", folder)


@pytest.fixture(scope="module")
def manifest(exported: Ran, folder: Path) -> Manifest:
    assert exported.code == 0, exported.err
    return load_artifact(str(folder / "lite.onnx")).manifest


@pytest.fixture(scope="module", params=["fresh", "embedded"])
def model_path(request: pytest.FixtureRequest, manifest: Manifest, folder: Path) -> Path:
    return folder / manifest.file if request.param == "fresh" else EMBEDDED


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    """Four real crops, and noise, black and white; [7, 224, 224, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    return np.concatenate([GOLDEN["faces"], noise, np.zeros_like(noise), np.full_like(noise, 255)])


def outputs(path: Path, batch: NDArray[np.uint8]) -> tuple[BatchFloat, BatchFloat]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logit, score = session.run(["logit", "score"], {"faces": batch})
    return logit, score


def test_the_graph_takes_a_dynamic_batch_of_bytes_and_gives_logit_and_score(model_path: Path) -> None:
    graph = onnx.load(model_path).graph
    form = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    }
    assert form == {
        "faces": (TensorProto.UINT8, ["N", 224, 224, 3]),
        "logit": (TensorProto.FLOAT, ["N"]),
        "score": (TensorProto.FLOAT, ["N"]),
    }


def test_logits_are_those_of_torch_and_of_the_reference(model_path: Path, faces: NDArray[np.uint8]) -> None:
    network = lite.DETECTOR.build()
    load_weights(network, WEIGHTS, name="lite")
    with torch.inference_mode():
        expected, expected_score = ArtifactGraph(network, LITE)(torch.from_numpy(faces))
    logit, score = outputs(model_path, faces)
    assert np.abs(logit - expected.numpy()).max() < 1e-4
    assert np.abs(score - expected_score.numpy()).max() < 1e-4
    assert np.abs(logit[:4] - GOLDEN["logit"]).max() < 2e-3


def test_the_score_is_the_calibrated_logit(model_path: Path, faces: NDArray[np.uint8]) -> None:
    logit, score = outputs(model_path, faces)
    assert np.abs(score - 1.0 / (1.0 + np.exp(-(0.968 * logit - 0.837)))).max() < 1e-6
    assert score == pytest.approx([LITE.calibration.score(value) for value in logit.tolist()], abs=1e-6)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_face_has_the_same_logit_in_any_batch(model_path: Path, faces: NDArray[np.uint8], count: int) -> None:
    together, _ = outputs(model_path, faces)
    apart, _ = outputs(model_path, faces[:count])
    assert apart.shape == (count,)
    assert np.abs(apart - together[:count]).max() < 1e-5


def test_the_committed_asset_is_what_the_command_makes(
    manifest: Manifest, folder: Path, faces: NDArray[np.uint8]
) -> None:
    fresh, embedded = (
        # Other constants are the exporter's own, and named differently by its next version.
        {tensor.name: tensor for tensor in onnx.load(path).graph.initializer if tensor.name.startswith("network.")}
        for path in (folder / manifest.file, EMBEDDED)
    )
    assert len(fresh) > 300
    assert fresh == embedded
    for one, other in zip(outputs(folder / manifest.file, faces), outputs(EMBEDDED, faces), strict=True):
        assert np.abs(one - other).max() < 1e-5
    asset = load_artifact("lite").manifest
    assert (manifest.spec, manifest.weights_sha256, manifest.opset, manifest.precision) == (
        *(asset.spec, asset.weights_sha256, asset.opset, asset.precision),
    )


def test_weights_are_stored_as_float16_without_loss(model_path: Path) -> None:
    given = load_file(WEIGHTS)
    model = onnx.load(model_path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, value in given.items():
        held = stored[f"network.{name}.half"]
        assert held.dtype == np.float16
        np.testing.assert_array_equal(held, value, err_msg=name)
    assert {held.dtype for name, held in stored.items() if name.startswith("network.")} == {np.dtype(np.float16)}
    assert 9.7e6 < model_path.stat().st_size < 10.1e6


def test_arithmetic_is_in_float32(model_path: Path) -> None:
    inferred = onnx.shape_inference.infer_shapes(onnx.load(model_path), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    computed = {types[node.output[0]] for node in inferred.graph.node if node.op_type in ("Conv", "BatchNormalization")}
    assert computed == {TensorProto.FLOAT}


def test_the_manifest_describes_the_files_that_were_written(manifest: Manifest, folder: Path) -> None:
    data = (folder / "lite.onnx").read_bytes()
    assert sorted(os.listdir(folder)) == WRITTEN
    assert (manifest.sha256, manifest.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert manifest.weights_sha256 == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    assert manifest.weights_file == WEIGHTS.name
    assert manifest.tools["torch"] == torch.__version__
    assert json.loads((folder / "lite.manifest.json").read_text())["opset"] == manifest.opset == 18
    held = network_of(load_artifact(str(folder / "lite.onnx"))).state_dict()
    assert all(np.array_equal(held[name].numpy(), values) for name, values in load_file(WEIGHTS).items())


def test_the_command_says_what_it_made_and_it_scans_like_the_embedded_one(exported: Ran, folder: Path) -> None:
    assert (exported.code, exported.out) == (0, b"")
    assert "opset 18" in exported.err
    scan = ("scan", SWAPPED, "--frames", "2", "--quiet", "--out", "-")
    (made,), (embedded,) = deepscan(*scan, "--model", folder / "lite.onnx").rows, deepscan(*scan).rows
    assert made["score"] == embedded["score"] != ""
    assert made["settings_sha256"] == embedded["settings_sha256"]


def test_an_export_holds_no_path_of_this_machine(manifest: Manifest, folder: Path) -> None:
    model = onnx.load(folder / manifest.file)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # weights may hold any bytes
    text = model.SerializeToString() + (folder / "lite.manifest.json").read_bytes()
    machine = [str(part).encode() for part in (ROOT, Path(torch.__file__).parent, Path.home(), folder)]
    assert [part for part in (*machine, b".py", b"/tmp") if part in text] == []


def test_a_place_that_cannot_be_written_is_an_output_error_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "lite.onnx").mkdir()
    (tmp_path / "lite.manifest.json").write_text("kept")
    for place in (tmp_path / "file" / "below", tmp_path):
        with pytest.raises(OutputError, match=r"cannot be written to \(.*\): choose another place\.$"):
            store_artifact(load_artifact("lite"), place)
    assert sorted(os.listdir(tmp_path)) == ["file", "lite.manifest.json", "lite.onnx"]
    assert [(tmp_path / name).read_text() for name in ("file", "lite.manifest.json")] == ["kept", "kept"]


def test_nothing_is_written_where_the_weights_or_the_name_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"w\.safetensors has no known format of weights"):
        export_artifact("lite", tmp_path / "w.safetensors", tmp_path / "out")
    with pytest.raises(UsageError, match="No detector is called 'heavy'"):
        export_artifact("heavy", WEIGHTS, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out", "w.safetensors"]
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_no_export_has_written_is_found_before_any_work(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=rf"{name} exists and was not written by deepscan"):
        export_artifact("lite", tmp_path / "no weights", tmp_path)
    assert {other: (tmp_path / other).read_text() for other in os.listdir(tmp_path)} == {name: "mine"}


def test_what_an_export_has_written_the_next_one_may_replace(manifest: Manifest, folder: Path) -> None:
    assert sorted(os.listdir(folder)) == WRITTEN
    with pytest.raises(ModelError, match="no weights"):  # later
        export_artifact("lite", folder / "no weights", folder)


def test_a_place_that_cannot_be_written_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=r"cannot be written to \(.*\): choose another place\.$"):
        export_artifact("lite", tmp_path / "no weights", tmp_path / "file" / "below")


@pytest.mark.parametrize(("scale", "says"), [(0.0, "the same score"), (LARGEST, "scores that are no numbers")])
def test_weights_that_make_every_answer_the_same_or_no_number_are_refused(
    scale: float, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact, "PACKAGED_CROPS", 4)
    network = network_of(load_artifact("lite"))
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if "bn" in name and name.endswith("weight"):
                tensor.fill_(scale)
    with pytest.raises(ModelError, match=rf"^w\.pth makes lite give different faces {says}: these are not its"):
        make_artifact(network, LITE, WeightsOrigin("w.pth", "0" * 64), ExportSettings())
