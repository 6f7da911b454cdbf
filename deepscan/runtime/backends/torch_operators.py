"""ONNX operators of opset 18 as torch functions: those that exported detectors use, and of each what they use.

A function takes the operator's inputs in order and its attributes by name, with ONNX's defaults. While a graph is
built, what depends on the pixels is a `torch.fx.Proxy`, which notes what is called; constants are tensors, and what
depends on constants alone is computed at once. Shapes, axes and bounds must be constants.
See https://github.com/onnx/onnx/blob/main/docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch
from onnx import TensorProto
from torch import Tensor

from deepscan.runtime.backends.torch_layers import batch_norm, convolution, layer_norm, max_pool, pad, resize
from deepscan.runtime.backends.torch_shapes import concat, gather, reshape, slices, split, squeeze, transpose, unsqueeze
from deepscan.runtime.backends.torch_values import TYPES, Unsupported, integers, loaded, number

Result: TypeAlias = Tensor | Sequence[Tensor]


def cast(x: Tensor, *, to: int, widen: bool = False) -> Tensor:
    """Cast; float16 becomes float32 where everything is to be widened."""
    if to not in TYPES:
        raise Unsupported(f"casts to {TensorProto.DataType.Name(to)}")
    return x.to(torch.float32 if widen and to == TensorProto.FLOAT16 else TYPES[to])


def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Clip, between constants."""
    return torch.clamp(x, *(None if bound is None else number(bound, "bound") for bound in (low, high)))


def constant(
    *,
    value: TensorProto | None = None,
    value_ints: list[int] | None = None,
    value_floats: list[float] | None = None,
    widen: bool = False,
) -> Tensor:
    """Constant: a tensor, or a list of numbers."""
    if value is not None:
        return loaded(value, widen=widen)
    if value_ints is not None:
        return torch.tensor(value_ints)
    if value_floats is not None:
        return torch.tensor(value_floats)
    raise Unsupported("has neither tensor nor numbers")


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Div, of floating-point numbers; for whole ones ONNX has another rule than torch."""
    if any(isinstance(value, Tensor) and not value.is_floating_point() for value in (a, b)):
        raise Unsupported("divides whole numbers")
    return torch.div(a, b)


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """Gemm."""
    product = torch.matmul(a.t() if transA else a, b.t() if transB else b)
    if alpha != 1.0:
        product = product * alpha
    if c is None:
        return product
    return product + (c if beta == 1.0 else c * beta)


def identity(x: Tensor) -> Tensor:
    """Identity."""
    return x


def reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """ReduceMean, ReduceMax or ReduceSum: `function` takes (x, axes, keep the axes)."""

    def reduce(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1) -> Tensor:
        wanted = [] if axes is None else integers(axes, "axes")
        if not wanted:
            raise Unsupported("names no axes")
        return function(x, wanted, bool(keepdims))

    return reduce


def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Softmax."""
    return torch.softmax(x, dim=axis)


def plain(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the operator that is this function of torch, and has no attributes."""

    def call(*inputs: Tensor) -> Tensor:
        return function(*inputs)

    return call


# Attributes that concern other modes than those supported, the training, or outputs that are not used.
IGNORED: Final = {"cubic_coeff_a", "extrapolation_value", "momentum", "noop_with_empty_axes", "storage_order"}
OPERATORS: Final[dict[str, Callable[..., Result]]] = {
    "Abs": plain(torch.abs),
    "Add": plain(torch.add),
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Concat": concat,
    "Constant": constant,
    "Conv": convolution,
    "Div": divide,
    "Erf": plain(torch.erf),
    "Gather": gather,
    "Gemm": gemm,
    "Identity": identity,
    "LayerNormalization": layer_norm,
    "Log": plain(torch.log),
    "MatMul": plain(torch.matmul),
    "MaxPool": max_pool,
    "Mul": plain(torch.mul),
    "Pad": pad,
    "ReduceMax": reduced(torch.amax),
    "ReduceMean": reduced(torch.mean),
    "ReduceSum": reduced(torch.sum),
    "Relu": plain(torch.relu),
    "Reshape": reshape,
    "Resize": resize,
    "Sigmoid": plain(torch.sigmoid),
    "Slice": slices,
    "Softmax": softmax,
    "Split": split,
    "Squeeze": squeeze,
    "Sub": plain(torch.sub),
    "Tanh": plain(torch.tanh),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
