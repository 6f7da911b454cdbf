from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from deepscan.errors import ModelError
from deepscan.models.checkpoints.unwrapping import unwrapped

WEIGHTS = {"conv.weight": torch.ones(2), "conv.bias": torch.tensor(1.0)}
OPTIMIZER = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1).state_dict()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WEIGHTS, ""),
        ({"state_dict": WEIGHTS, "epoch": torch.tensor(3), "model": "resnet"}, "under 'state_dict'"),
        ({"ema": {"net": WEIGHTS | {"note": "text"}}}, "under 'ema.net'"),
    ],
)
def test_the_one_set_of_weights_is_found(content: object, said: str) -> None:
    tensors, wrapping = unwrapped(content, Path("w.pt"))
    assert tensors.keys() == WEIGHTS.keys()
    assert wrapping == said


def itself() -> dict[str, object]:
    content: dict[str, object] = {"epoch": 3}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (OPTIMIZER, r"holds the state of an optimizer, not weights: give the file of the network\.$"),
        ({"model": WEIGHTS, "ema": WEIGHTS}, r"several sets of weights \(at model, ema\): save the one"),
        ({"model": WEIGHTS, "head.weight": torch.ones(2)}, r"several sets of weights \(at the top, model\)"),
        ({"state_dict": {"model": WEIGHTS, "net": WEIGHTS}}, r"\(at state_dict\.model, state_dict\.net\)"),
        ({"epoch": 3, "generator": WEIGHTS}, r"no weights in the usual places \(it has: epoch, generator\)"),
        ({}, r"no weights in the usual places \(it has: nothing\)"),
        ({3: torch.ones(2)}, r"no weights in the usual places \(it has: 3\)"),
        (itself(), "no weights in the usual places"),
        ([torch.ones(2)], "holds one object of the type list, not named weights"),
        (torch.ones(2), "holds one object of the type Tensor, not named weights"),
    ],
)
def test_content_without_one_set_of_weights_is_refused(content: object, said: str) -> None:
    with pytest.raises(ModelError, match=rf"^w\.pt .*{said}"):
        unwrapped(content, Path("w.pt"))
