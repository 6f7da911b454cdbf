"""Graphs that no engine is built from, and int8 as TensorRT takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deepscan.errors import ModelError
from deepscan.export.packing import packed
from deepscan.runtime.artifacts.artifacts import Artifact
from deepscan.runtime.backends.tensorrt.engine_store import MANIFEST
from deepscan.runtime.backends.tensorrt.tensorrt_packages import load_package
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.spec import DetectorSpec
from tests.export.engine_building import ARCHITECTURES, build, tiny
from tests.runtime.engines import contents
from tests.runtime.tiny_detectors import ORIGIN, TINY_CLIP, TINY_FRAME


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def other_graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A graph that takes and gives what the tiny detector does, with other nodes from `faces` to `logit`."""
    size = TINY_FRAME.item_shape
    graph = helper.make_graph(
        [*nodes, helper.make_node("Sigmoid", ["logit"], ["score"])],
        "other",
        [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["N", *size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("logit", "score")],
        [numpy_helper.from_array(np.array([1, 2, 3]), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_a_graph_that_it_does_not_take_is_refused_in_one_sentence_that_names_the_node(home: Path) -> None:
    graph = other_graph(
        helper.make_node("Transpose", ["faces"], ["turned"], name="turn it", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["logit"], keepdims=0),
    )
    with pytest.raises(ModelError) as caught:
        build(packed(graph, TINY_FRAME, ORIGIN))
    text = str(caught.value)
    assert text.startswith(
        f"TensorRT-RTX {load_package('tensorrt-rtx').version} does not take node turn it (Transpose)"
    )
    assert "tiny-frame.onnx" in text
    assert "UInt8" in text
    assert text.endswith("): export the detector again, or use another backend.")
    assert not [noise for noise in ("\n", "cudaError", ".cpp", "/_src") if noise in text]
    assert not [name for name in contents(home) if MANIFEST in name]


def quantized(spec: DetectorSpec, *, kind: type[np.int8 | np.uint8] = np.int8, zero: int = 0) -> Artifact:
    """An artifact of one quantized convolution."""
    steps = len(spec.item_shape) - 1
    weights = {
        "scale": np.float32(0.05),
        "zero": kind(zero),
        "kernel": (np.arange(4 * 3 * 3**steps) % 100).astype(np.int8).reshape(4, 3, *[3] * steps),
        "kernel scales": np.full(4, 0.01, dtype=np.float32),
        "kernel zeros": np.zeros(4, dtype=np.int8),
        "axes": np.arange(1, steps + 2),
    }
    nodes = [
        helper.make_node("Cast", [spec.input_name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], perm=[0, steps + 1, *range(1, steps + 1)]),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="to int8"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["kernel", "kernel scales", "kernel zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["dq", "w"], ["y"]),
        helper.make_node("ReduceMean", ["y", "axes"], ["logit"], keepdims=0),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info(spec.input_name, TensorProto.UINT8, ["N", *spec.item_shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("logit", "score")],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return packed(model, spec, ORIGIN, precision="int8")


@pytest.mark.parametrize("spec", [TINY_FRAME, TINY_CLIP], ids=["2-D", "3-D"])
def test_symmetric_int8_is_taken_without_a_complaint(spec: DetectorSpec) -> None:
    engines = [build(quantized(spec), architecture) for architecture in ARCHITECTURES]
    assert [(engine.manifest.precision, engine.manifest.warnings) for engine in engines] == [("int8", ())] * 4


@pytest.mark.parametrize(("kind", "zero"), [(np.int8, 3), (np.uint8, 128), (np.uint8, 0)])
def test_int8_with_zero_points_is_refused(kind: type[np.int8 | np.uint8], zero: int) -> None:
    with pytest.raises(ModelError, match=r"tiny-frame-int8\.onnx is quantized with zero points \(to int8\)"):
        build(quantized(TINY_FRAME, kind=kind, zero=zero))


def other_side(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64


def fixed_batch(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def other_type(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def second_input(graph: onnx.ModelProto) -> None:
    graph.graph.input.add().CopyFrom(graph.graph.input[0])
    graph.graph.input[1].name = "more"


def other_output(graph: onnx.ModelProto) -> None:
    del graph.graph.output[0]


@pytest.mark.parametrize("change", [other_side, fixed_batch, other_type, second_input, other_output])
def test_a_graph_that_is_not_what_its_record_says_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    graph = onnx.load_model_from_string(tiny().model)
    change(graph)
    changed = Artifact(tiny().manifest, graph.SerializeToString())
    with pytest.raises(
        ModelError, match=r"tiny-frame\.onnx does not turn uint8 faces \[N, 32, 32, 3\] into logit: export"
    ):
        build(changed)


def test_no_other_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = onnx.load_model_from_string(tiny().model)
    weights = graph.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(numpy_helper.to_array(weights).tobytes())
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights), weights.name))
    onnx.external_data_helper.set_external_data(weights, "weights.bin")
    weights.ClearField("raw_data")
    with pytest.raises(ModelError, match=r"tiny-frame\.onnx keeps .* in another file, which is not read"):
        build(Artifact(tiny().manifest, graph.SerializeToString()))


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(ModelError, match=r"tiny-frame\.onnx is not an ONNX file: export the detector again\."):
        build(Artifact(tiny().manifest, b"not a model"))
