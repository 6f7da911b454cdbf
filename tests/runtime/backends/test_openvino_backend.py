from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deepscan.errors import MachineError, ModelError
from deepscan.export.packing import packed
from deepscan.installing import install_extra
from deepscan.options import Arithmetic
from deepscan.runtime.artifacts.artifacts import Artifact, load_artifact
from deepscan.runtime.artifacts.graph_index import parsed_model
from deepscan.runtime.backends import openvino_backend
from deepscan.runtime.backends.openvino_backend import OpenVinoBackend
from tests.runtime.backends.manifests import manifest_in
from tests.runtime.graphs import graph_from, small_clip_artifact
from tests.runtime.tiny_detectors import ORIGIN, TINY_FRAME

GOLDEN = Path(__file__).parents[2] / "models" / "lite_golden.npz"
REMEDY = install_extra("openvino")
SCALE = 1 / 128
HAS_BF16 = "bf16" in OpenVinoBackend.precisions(manifest_in("fp32"), "cpu")


@pytest.fixture(scope="module")
def golden() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    with np.load(GOLDEN) as held:
        yield held["faces"], held["logit"]


def quantized_artifact() -> Artifact:
    """A convolution with explicit int8 quantization around it, and the mean of what comes out."""
    random = np.random.default_rng(0)
    constants: dict[str, NDArray[Any]] = {
        "bright": np.array(255.0, dtype=np.float32),
        "pixel_scale": np.array(SCALE, dtype=np.float32),
        "pixel_zero": np.array(0, dtype=np.uint8),
        "weights": random.integers(-90, 90, (16, 3, 3, 3), dtype=np.int8),
        "weight_scale": np.array(0.001, dtype=np.float32),
        "weight_zero": np.array(0, dtype=np.int8),
        "axes": np.array([1, 2, 3]),
    }
    nodes = [
        helper.make_node("Transpose", ["wide"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["turned", "bright"], ["normalized"]),
        helper.make_node("QuantizeLinear", ["normalized", "pixel_scale", "pixel_zero"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "pixel_scale", "pixel_zero"], ["again"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_scale", "weight_zero"], ["kernels"]),
        helper.make_node("Conv", ["again", "kernels"], ["maps"]),
        helper.make_node("ReduceMean", ["maps", "axes"], ["logit"], keepdims=0),
    ]
    return packed(graph_from(nodes, constants), TINY_FRAME, ORIGIN, precision="int8")


def test_the_embedded_detector_gives_its_golden_logits(golden: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> None:
    faces, logits = golden
    with closing(OpenVinoBackend(load_artifact("lite"), device="cpu", threads=2, precision="fp32")) as backend:
        found = np.concatenate([backend.logits(face[None]) for face in faces])
    assert found == pytest.approx(logits, abs=1e-4)


@pytest.mark.skipif(not HAS_BF16, reason="this processor does not multiply in bfloat16")
def test_bfloat16_is_another_arithmetic(golden: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> None:
    faces, logits = golden
    with closing(OpenVinoBackend(load_artifact("lite"), device="cpu", threads=2, precision="bf16")) as backend:
        found = np.concatenate([backend.logits(face[None]) for face in faces])
    differences = np.abs(found - logits)
    assert 1e-4 < differences.max() < 0.05


def test_quantized_layers_are_computed_in_int8() -> None:
    artifact = quantized_artifact()
    assert OpenVinoBackend.precisions(manifest_in("int8"), "cpu") == ("int8",)
    with closing(OpenVinoBackend(artifact, device="cpu", threads=1, precision="int8")) as backend:
        face = np.full((1, 32, 32, 3), 100, dtype=np.uint8)
        initializers = onnx.load_model_from_string(artifact.model).graph.initializer
        (weights,) = [numpy_helper.to_array(tensor) for tensor in initializers if tensor.name == "weights"]
        quantized = round(100 / 255 / SCALE) * SCALE
        expected = quantized * 0.001 * weights.sum(axis=(1, 2, 3)).mean()
        assert backend.logits(face) == pytest.approx([expected], rel=1e-3)
        assert backend.precision == "int8"


@pytest.mark.parametrize(
    ("hint", "precision"),
    [
        ("f32", "int8"),
        pytest.param("bf16", "fp32", marks=pytest.mark.skipif(not HAS_BF16, reason="no bfloat16 here")),
        pytest.param("f32", "bf16", marks=pytest.mark.skipif(not HAS_BF16, reason="no bfloat16 here")),
    ],
)
def test_a_graph_that_was_compiled_to_another_arithmetic_is_refused(
    monkeypatch: pytest.MonkeyPatch, hint: str, precision: Arithmetic
) -> None:
    """What a hint that is not followed looks like: the one that is given is not the one that was asked for."""
    artifact = packed_again(small_clip_artifact(), "int8" if precision == "int8" else "fp32")
    monkeypatch.setitem(openvino_backend.PRECISION_HINTS, precision, hint)
    with pytest.raises(MachineError, match=rf"OpenVINO does not compute .* in {precision} \(\d layers in ") as error:
        OpenVinoBackend(artifact, device="cpu", threads=1, precision=precision)
    assert str(error.value).endswith(".")


def packed_again(artifact: Artifact, precision: str) -> Artifact:
    model = onnx.load_model_from_string(artifact.model)
    return packed(model, artifact.manifest.spec, ORIGIN, precision="int8" if precision == "int8" else "fp32")


def test_bfloat16_is_where_the_processor_multiplies_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in (["avx512_bf16"], ["amx_bf16"], ["avx_vnni", "avx_vnni_int8", "avx_ne_convert"]):
        monkeypatch.setattr(openvino_backend, "processor_flags", lambda flags=flags: frozenset(["avx2", *flags]))
        assert OpenVinoBackend.precisions(manifest_in("fp16"), "cpu") == ("fp32", "bf16")
    monkeypatch.setattr(openvino_backend, "processor_flags", lambda: frozenset(["avx512f", "avx_vnni"]))
    assert OpenVinoBackend.precisions(manifest_in("fp32"), "cpu") == ("fp32",)
    assert OpenVinoBackend.precisions(manifest_in("int8"), "cpu") == ("int8",)
    assert OpenVinoBackend.precisions(manifest_in("fp32"), "cuda") == ()


def test_the_flags_of_the_processor_say_what_openvino_says_of_it() -> None:
    capabilities = openvino_backend._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert ("BF16" in capabilities) == HAS_BF16


def test_without_openvino_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # Python takes it for a package that is not installed
    openvino_backend._core.cache_clear()
    try:
        with pytest.raises(MachineError, match=rf"^OpenVINO cannot be loaded .*run `{re.escape(REMEDY)}`\.$"):
            OpenVinoBackend(load_artifact("lite"), device="cpu", threads=1, precision="fp32")
    finally:
        openvino_backend._core.cache_clear()
    assert OpenVinoBackend.precisions(manifest_in("fp32"), "cpu") == ()


def test_a_graph_with_a_fixed_batch_is_refused() -> None:
    lite = load_artifact("lite")
    model = onnx.load_model_from_string(lite.model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(ModelError, match=r"lite\.onnx does not turn uint8 faces \[N, 224, 224, 3\] into logit"):
        OpenVinoBackend(Artifact(lite.manifest, model.SerializeToString()), device="cpu", threads=1, precision="fp32")


def test_a_tensor_in_another_file_is_found_wherever_it_hides() -> None:
    def outside() -> TensorProto:
        tensor = numpy_helper.from_array(np.zeros(2, dtype=np.float32), "hidden")
        onnx.external_data_helper.set_external_data(tensor, "weights.bin")
        tensor.ClearField("raw_data")
        return tensor

    constant = helper.make_node("Constant", [], ["x"], value=outside())
    branch = helper.make_graph([constant], "branch", [], [])
    choice = helper.make_node("If", ["c"], ["x"], then_branch=branch, else_branch=helper.make_graph([], "none", [], []))
    sparse = onnx.SparseTensorProto(values=outside(), dims=[2])
    graphs = [
        helper.make_graph([], "initializer", [], [], [outside()]),
        helper.make_graph([constant], "constant", [], []),
        helper.make_graph([choice], "subgraph", [], []),
        helper.make_graph([], "sparse", [], [], sparse_initializer=[sparse]),
        helper.make_graph([helper.make_node("Constant", [], ["x"], sparse_value=sparse)], "sparse value", [], []),
    ]
    function = helper.make_function("here", "f", [], ["x"], [constant], [helper.make_opsetid("", 18)])
    models = [helper.make_model(graph) for graph in graphs]
    models.append(helper.make_model(helper.make_graph([], "function", [], []), functions=[function]))
    for model in models:
        with pytest.raises(ModelError, match=r"x\.onnx keeps 'hidden' in another file"):
            parsed_model(model.SerializeToString(), source="x.onnx")
    parsed_model(load_artifact("lite").model, source="lite.onnx")
