"""From an ONNX graph to a torch module, so that the torch backend runs the artifact itself and nothing else.

The module is a `torch.fx` graph of plain torch functions, which `torch.compile` can fuse. What does not depend on the
input is computed here, batch normalization is folded into the convolution before it, and weights lie channels last in
memory, which makes the maps behind them do so too.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, helper
from torch import Tensor, fx

from deepscan.errors import ModelError
from deepscan.runtime.artifacts.external_data import refuse_external_data
from deepscan.runtime.backends.torch_layers import convolution, folded
from deepscan.runtime.backends.torch_operators import IGNORED, OPERATORS, cast, constant
from deepscan.runtime.backends.torch_values import Unsupported, loaded

OPSET: Final = 18


def module_from_onnx(model: onnx.ModelProto, *, source: str = "The graph", widen: bool = False) -> fx.GraphModule:
    """Build the module that computes what an exported graph does.

    Args:
        model: of opset 18, with one input and all its data inside; not needed afterwards.
        source: its name, for messages.
        widen: compute float16 in float32, as ONNX Runtime does on processors.

    Returns:
        Takes the graph's input and returns a tuple of its outputs. The weights are buffers, on the CPU.

    Raises:
        ModelError: an operator, an attribute or a kind of input is not supported.
    """
    graph = model.graph
    if [(opset.domain, opset.version) for opset in model.opset_import] != [("", OPSET)] or len(graph.input) != 1:
        raise ModelError(f"{source} is not of opset {OPSET} with one input, which torch needs: export it again.")
    refuse_external_data(model, source=source)
    try:
        building = _Building(graph, widen=widen)
        for node in graph.node:
            building.add(node)
        return building.module([output.name for output in graph.output])
    except Unsupported as error:
        raise ModelError(f"{source} cannot be run with torch ({error}): use another --backend.") from error


class _Recorder(fx.proxy.GraphAppendingTracer):
    """Notes calls of torch functions in a graph, and keeps the constants that they take, each once."""

    def __init__(self) -> None:
        super().__init__(fx.Graph())
        self.constants: dict[str, Any] = {}
        self._nodes: dict[int, fx.Node] = {}

    def create_arg(self, a: Any) -> Any:
        """Return what stands in the graph for an argument."""
        if not isinstance(a, Tensor):
            return super().create_arg(a)
        if id(a) not in self._nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = a  # being kept, it keeps its id too
            self._nodes[id(a)] = self.graph.get_attr(name)
        return self._nodes[id(a)]


class _Building:
    """A module on its way. Values are known by their ONNX names: tensors, or proxies if they depend on the input."""

    def __init__(self, graph: GraphProto, *, widen: bool) -> None:
        self._operators = OPERATORS | {"Cast": partial(cast, widen=widen), "Constant": partial(constant, widen=widen)}
        self._recorder = _Recorder()
        self._values: dict[str, Any] = {tensor.name: loaded(tensor, widen=widen) for tensor in graph.initializer}
        self._values[graph.input[0].name] = fx.Proxy(self._recorder.graph.placeholder("pixels"), self._recorder)
        self._to_be_normalized = _to_be_normalized(graph)
        self._waiting: dict[str, NodeProto] = {}

    def add(self, node: NodeProto) -> None:
        """Compute what a node gives, or note how it is computed.

        Raises:
            Unsupported: the node, by its name.
        """
        if node.op_type == "Conv" and node.output[0] in self._to_be_normalized:
            self._waiting[node.output[0]] = node  # for what will be folded into it
            return
        if node.op_type == "BatchNormalization" and node.input[0] in self._waiting:
            result = self._normalized_convolution(self._waiting[node.input[0]], node)
        elif node.op_type in self._operators:
            result = _called(node, self._operators[node.op_type], self._inputs(node.input))
        else:
            raise Unsupported(f"it does not know the operator {node.op_type} of {node.name!r}")
        if node.op_type == "Split":
            self._values.update((name, result[place]) for place, name in enumerate(node.output))
        elif len(node.output) == 1:
            self._values[node.output[0]] = result
        else:
            raise Unsupported(f"{node.op_type} {node.name!r} gives more than one value")

    def module(self, outputs: Sequence[str]) -> fx.GraphModule:
        """Return the module that gives the values of these names."""
        graph = self._recorder.graph
        graph.output(tuple(self._recorder.create_arg(value) for value in self._inputs(outputs)))
        graph.eliminate_dead_code()
        return fx.GraphModule(self._recorder.constants, graph)

    def _normalized_convolution(self, node: NodeProto, normalization: NodeProto) -> Any:
        x, weight, *bias = self._inputs(node.input)
        statistics = self._inputs(normalization.input[1:])
        both = _called(normalization, folded, [weight, bias[0] if bias else None, *statistics])
        return _called(node, convolution, [x, *both])

    def _inputs(self, names: Sequence[str]) -> list[Any]:
        """Return the values of these names; an empty name stands for one that is left out."""
        missing = [name for name in names if name and name not in self._values]
        if missing:
            raise Unsupported(f"it takes {missing[0]!r}, which nothing gives")
        return [self._values[name] if name else None for name in names]


def _to_be_normalized(graph: GraphProto) -> set[str]:
    """Return the names of the values that go into a batch normalization and nowhere else."""
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    inputs = (node.input[0] for node in graph.node if node.op_type == "BatchNormalization")
    return {name for name in inputs if uses[name] == 1}


def _called(node: NodeProto, function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    """Call what does a node's work.

    Raises:
        Unsupported: it takes other inputs or attributes, or cannot do what they say.
    """
    attributes = {given.name: _plain(given) for given in node.attribute if given.name not in IGNORED}
    try:
        bound = inspect.signature(function).bind(*inputs, **attributes)
        return function(*bound.args, **bound.kwargs)
    except (TypeError, Unsupported) as error:
        raise Unsupported(f"{node.op_type} {node.name!r} {error}") from error


def _plain(attribute: AttributeProto) -> Any:
    """Return an attribute as Python numbers and strings; a tensor as it is."""
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value
