"""A RetinaFace that sees nothing, for tests of what is installed and chosen."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from deepscan.runtime.artifacts.weights_store import RECORD, Record
from deepscan.runtime.faces.retinaface import INPUT_NAME, OUTPUT_NAMES


def install_retinaface(home: Path) -> Path:
    """Put a graph that sees nothing into the store, as RetinaFace; return its file."""
    maps = [np.zeros(shape, dtype=np.float32) for shape in [(1, 2, 4), (1, 2), (1, 2, 10)]]
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))
        for name, values in zip(OUTPUT_NAMES, maps, strict=True)
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)
        for name, values in zip(OUTPUT_NAMES, maps, strict=True)
    ]
    pictures = helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", "H", "W", 3])
    graph = helper.make_graph(nodes, "nothing", [pictures], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    record = Record(
        name="retinaface",
        kind="face detector",
        sha256="a" * 64,
        file="mobilenet0.25_Final.pth",
        trained=True,
        added=0.0,
        note="",
    )
    folder = home / "weights" / f"{record.name}-{record.sha256}"
    folder.mkdir(parents=True)
    (folder / RECORD).write_bytes(msgspec.json.encode(record))
    path = folder / "retinaface.onnx"
    path.write_bytes(model.SerializeToString())
    return path
