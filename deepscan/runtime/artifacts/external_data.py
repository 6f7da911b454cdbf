"""Reading ONNX files, and refusing those whose tensors lie in other files: no artifact may be one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from google.protobuf.message import DecodeError

from deepscan.errors import ModelError


def parsed_model(model: bytes, *, source: str) -> onnx.ModelProto:
    """Parse an ONNX file that needs no other one.

    Raises:
        ModelError: it is none, or a tensor lies in another file.
    """
    try:
        parsed = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise ModelError(f"{source} is not an ONNX file: export the detector again.") from error
    refuse_external_data(parsed, source=source)
    return parsed


def refuse_external_data(model: onnx.ModelProto, *, source: str) -> None:
    """Refuse a model whose tensors lie in other files.

    OpenVINO reads them wherever they are, absolute paths and all, also for a model that it got as bytes.

    Raises:
        ModelError: a tensor lies in another file.
    """
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(f"{source} keeps {tensor.name!r} in another file, which is not read: export it again.")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors_of_graph(graph)
