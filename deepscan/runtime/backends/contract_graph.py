"""The graph of an artifact, for backends that read it themselves: checked against what its record says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.external_data import refuse_external_data

if TYPE_CHECKING:
    from deepscan.runtime.artifacts.artifacts import Artifact

LOGIT: Final = "logit"


def checked_graph(artifact: Artifact) -> onnx.ModelProto:
    """Parse the graph of an artifact.

    Raises:
        ModelError: it is no ONNX file, refers to other files, or does not take and give what its record says.
    """
    manifest, spec = artifact.manifest, artifact.manifest.spec
    try:
        model = onnx.load_model_from_string(artifact.model)
    except DecodeError as error:
        raise ModelError(f"{manifest.file} is not an ONNX file: export the detector again.") from error
    refuse_external_data(model, source=manifest.file)
    weights = {tensor.name for tensor in model.graph.initializer}
    tensors = {given.name: given.type.tensor_type for given in model.graph.input if given.name not in weights}
    taken = {
        name: (tensor.elem_type, [axis.dim_value for axis in tensor.shape.dim][1:]) for name, tensor in tensors.items()
    }
    item = list(spec.item_shape)
    given = [output.name for output in model.graph.output]
    if taken != {spec.input_name: (onnx.TensorProto.UINT8, item)} or LOGIT not in given:
        wanted = f"uint8 {spec.input_name} [N, {', '.join(map(str, item))}]"
        raise ModelError(f"{manifest.file} does not turn {wanted} into logit: export the detector again.")
    return model
