"""What no engine is built from, said before TensorRT is asked."""

from __future__ import annotations

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, TensorProto, numpy_helper

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.artifacts import Artifact, Manifest
from deepscan.runtime.artifacts.external_data import refuse_external_data

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def refuse_unfit(artifact: Artifact) -> None:
    """Refuse a graph that reads other files, is not what its record says, or is quantized with zero points.

    Raises:
        ModelError: it is one of these, or no graph at all.
    """
    manifest = artifact.manifest
    try:
        model = onnx.load_model_from_string(artifact.model)
    except DecodeError as error:
        raise ModelError(f"{manifest.file} is not an ONNX file: export the detector again.") from error
    refuse_external_data(model, source=manifest.file)
    _refuse_other_tensors(model.graph, manifest)
    if manifest.precision == "int8":
        _refuse_zero_points(model.graph, manifest)


def _refuse_other_tensors(graph: GraphProto, manifest: Manifest) -> None:
    name, item = manifest.spec.input_name, manifest.spec.item_shape
    taken = []
    for given in graph.input:
        tensor = given.type.tensor_type
        taken.append((given.name, tensor.elem_type, tuple(size.dim_value for size in tensor.shape.dim)))
    # The batch has no number.
    if taken != [(name, TensorProto.UINT8, (0, *item))] or "logit" not in [output.name for output in graph.output]:
        wanted = f"uint8 {name} [N, {', '.join(map(str, item))}]"
        raise ModelError(f"{manifest.file} does not turn {wanted} into logit: export the detector again.")


def _refuse_zero_points(graph: GraphProto, manifest: Manifest) -> None:
    """Refuse what is not symmetric around zero.

    TensorRT's parser refuses zero points other than 0; unsigned ones it takes for signed, with a warning, and would cut
    off half of the range.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in QUANTIZERS:
            continue
        point = values.get(node.input[2]) if len(node.input) > 2 else None
        if point is None or point.data_type != TensorProto.INT8 or np.any(numpy_helper.to_array(point)):
            raise ModelError(
                f"{manifest.file} is quantized with zero points ({node.name or node.output[0]}), and TensorRT takes "
                "symmetric int8 only: export it again with both --int8 and --engine."
            )
