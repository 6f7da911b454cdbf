"""The graph of an artifact: whether it is what the manifest says, and how large a batch its tensors allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.graph_index import GraphIndex, parsed_model
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


def checked_graph(artifact: Artifact) -> onnx.ModelProto:
    """Parse the graph of an artifact.

    Raises:
        ModelError: it is no ONNX file, refers to other files, or does not take and give what its record says.
    """
    manifest, spec = artifact.manifest, artifact.manifest.spec
    model = parsed_model(artifact.model, source=manifest.file)
    weights = {tensor.name for tensor in model.graph.initializer}
    tensors = {given.name: given.type.tensor_type for given in model.graph.input if given.name not in weights}
    taken = {
        name: (tensor.elem_type, [axis.dim_value for axis in tensor.shape.dim]) for name, tensor in tensors.items()
    }
    item = list(spec.item_shape)
    given = [output.name for output in model.graph.output]
    if taken != {spec.input_name: (onnx.TensorProto.UINT8, [0, *item])} or LOGIT not in given:
        wanted = f"uint8 {spec.input_name} [N, {', '.join(map(str, item))}]"
        raise ModelError(f"{manifest.file} does not turn {wanted} into logit: export the detector again.")
    return model


def largest_batch(model: onnx.ModelProto, limit_bytes: int) -> int:
    """Return the largest number of items with which no tensor inside a graph exceeds a limit.

    Args:
        model: with the number of items as the first dimension of its one input.
        limit_bytes: largest size of one tensor.

    Returns:
        0 if even a single item is too large.

    Raises:
        ModelError: shape inference does not tell the size of a tensor.
    """
    one, two = _tensor_bytes(model, 1), _tensor_bytes(model, 2)
    # What grows with the batch grows by the same with every item.
    fitting = [1 + (limit_bytes - size) // (two[name] - size) for name, size in one.items() if two[name] > size]
    return max(0, min(fitting))


def most_on_cuda(artifact: Artifact, *, memory_bytes: int) -> int:
    """Return the largest batch for a GPU with this much memory; at least 1, as a single item is tried on any."""
    most = CLIPS_AT_ONCE_CUDA if artifact.manifest.spec.kind == "clip" else CROPS_AT_ONCE_CUDA
    limit = min(CUDA_LIMIT_BYTES, memory_bytes // MEMORY_SHARE)
    return max(1, min(most, largest_batch(onnx.load_model_from_string(artifact.model), limit)))


def _tensor_bytes(model: onnx.ModelProto, items: int) -> dict[str, int]:
    """Return the sizes in bytes of the input and of the results of all nodes, by name, for a batch of `items`."""
    name = model.graph.name
    try:
        index = GraphIndex(model, batch=items, strict=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{name} is inconsistent ({str(error).strip()}): export the detector again.") from error
    for tensor in index.producers:
        if not index.is_known(tensor):
            raise ModelError(f"The size of {tensor} in {name} is not known: export the detector again.")
    return {tensor: index.nbytes(tensor) for tensor in (model.graph.input[0].name, *index.producers)}
