"""The graph of an artifact: whether it is what the manifest says, and how large a batch its tensors allow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.external_data import refuse_external_data
from deepscan.runtime.backends.contract import LOGIT

if TYPE_CHECKING:
    from deepscan.runtime.artifacts.artifacts import Artifact

# Larger tensors fail in the CUDA kernels of ONNX Runtime: they count bytes in 32 bits.
CUDA_LIMIT_BYTES: Final = 2**31 - 1
# Larger batches gain little, and every size that is used keeps its own memory.
CROPS_AT_ONCE_CUDA: Final = 64
CLIPS_AT_ONCE_CUDA: Final = 16
# No tensor may take more than this share of the GPU's memory: beside the largest there are others, and other sizes.
MEMORY_SHARE: Final = 16
# Elements that a tensor with sizes or axes may have; larger ones are weights, whose values no shape depends on.
LARGEST_SHAPE: Final = 1024


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


def largest_batch(model: onnx.ModelProto, limit_bytes: int) -> int:
    """Return for how many items at once no tensor inside a graph is larger than a limit.

    Args:
        model: with the number of items as the first dimension of its one input.
        limit_bytes: of one tensor.

    Returns:
        0 if even a single item is too large.

    Raises:
        ModelError: shape inference does not tell how large a tensor is.
    """
    one, two = _tensor_bytes(model, 1), _tensor_bytes(model, 2)
    # What grows with the batch grows by the same with every item.
    fitting = [1 + (limit_bytes - size) // (two[name] - size) for name, size in one.items() if two[name] > size]
    return max(0, min(fitting))


def most_on_cuda(artifact: Artifact, *, memory_bytes: int) -> int:
    """Return the largest batch for a GPU with so much memory; a single item is tried on any."""
    most = CLIPS_AT_ONCE_CUDA if artifact.manifest.spec.kind == "clip" else CROPS_AT_ONCE_CUDA
    limit = min(CUDA_LIMIT_BYTES, memory_bytes // MEMORY_SHARE)
    return max(1, min(most, largest_batch(onnx.load_model_from_string(artifact.model), limit)))


def _tensor_bytes(model: onnx.ModelProto, items: int) -> dict[str, int]:
    """Return how many bytes the input and the results of all nodes take, by name, for a batch of so many items."""
    given = model.graph.input[0]
    graph = onnx.GraphProto(node=model.graph.node, name=model.graph.name, input=[given])
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = items
    # The outputs' own shapes are left out, as they name the free batch, and so is what weights hold.
    graph.output.extend(onnx.ValueInfoProto(name=output.name) for output in model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= LARGEST_SHAPE:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    bare = onnx.ModelProto(graph=graph, ir_version=model.ir_version, opset_import=model.opset_import)
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        reason = str(error).strip()
        raise ModelError(f"{graph.name} contradicts itself ({reason}): export the detector again.") from error
    values = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
    sizes = {given.name: _bytes(graph.input[0].type.tensor_type)}
    for name in (name for node in graph.node for name in node.output):
        tensor = values.get(name)
        if tensor is None or not tensor.HasField("shape") or not all(map(_is_known, tensor.shape.dim)):
            raise ModelError(f"The size of {name} in {graph.name} is not known: export the detector again.")
        sizes[name] = _bytes(tensor)
    return sizes


def _is_known(axis: onnx.TensorShapeProto.Dimension) -> bool:
    return bool(axis.HasField("dim_value"))


def _bytes(tensor: onnx.TypeProto.Tensor) -> int:
    width: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    return width * math.prod(int(axis.dim_value) for axis in tensor.shape.dim)
