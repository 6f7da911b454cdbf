"""What operators demand of their inputs while a graph is built, and the tensors that a graph brings along."""

from __future__ import annotations

from typing import Final

import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, fx

TYPES: Final[dict[int, torch.dtype]] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.INT64: torch.int64,
}
CHANNELS_LAST: Final = {4: torch.channels_last, 5: torch.channels_last_3d}


class Unsupported(Exception):
    """What a graph asks that torch is not told how to do; where a function raises it, the operator's name precedes."""


def loaded(tensor: TensorProto, *, widen: bool) -> Tensor:
    """Return a tensor of the graph; with four or five axes it lies channels last in memory.

    Args:
        tensor: with its data inside.
        widen: turn float16 into float32.

    Raises:
        Unsupported: its data are of a type that exported detectors do not have.
    """
    if tensor.data_type not in TYPES:
        raise Unsupported(f"{tensor.name!r} is of type {TensorProto.DataType.Name(tensor.data_type)}")
    value = torch.tensor(numpy_helper.to_array(tensor))
    if widen and value.dtype == torch.float16:
        value = value.float()
    layout = CHANNELS_LAST.get(value.ndim)
    return value if layout is None else value.contiguous(memory_format=layout)


def fixed(value: Tensor, name: str) -> Tensor:
    """Return a value that does not depend on the pixels.

    Raises:
        Unsupported: it does.
    """
    if isinstance(value, fx.Proxy):
        raise Unsupported(f"computes its {name}")
    return value


def integers(value: Tensor, name: str) -> list[int]:
    """Return the whole numbers in a constant.

    Raises:
        Unsupported: it depends on the pixels.
    """
    return [int(number) for number in fixed(value, name).reshape(-1).tolist()]


def number(value: Tensor, name: str) -> float:
    """Return the only number in a constant.

    Raises:
        Unsupported: it depends on the pixels, or holds several.
    """
    if fixed(value, name).numel() != 1:
        raise Unsupported(f"has more than one {name}")
    return float(value)
