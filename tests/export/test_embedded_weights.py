from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepscan.errors import ModelError
from deepscan.export.artifact import Order, make_artifact
from deepscan.export.embedded_weights import load_embedded
from deepscan.export.packing import WeightsOrigin
from deepscan.models import lite
from deepscan.models.checkpoints.checkpoints import load_weights
from deepscan.models.lite import LITE

WEIGHTS = Path(__file__).parents[2] / "weights" / "lite2.safetensors"
LINES: list[str] = []
LARGEST = float(np.finfo(np.float32).max)


def test_the_embedded_artifact_gives_the_weights_that_it_was_made_from_bit_for_bit() -> None:
    published, embedded = lite.build(), lite.build().train()
    loaded = load_weights(published, WEIGHTS, name="lite")
    origin = load_embedded(embedded, "lite")
    assert (origin.file, origin.sha256, origin.trained) == (WEIGHTS.name, loaded.sha256, True)
    for name, tensor in published.state_dict().items():
        assert torch.equal(embedded.state_dict()[name], tensor), name
    assert not any(part.training for part in embedded.modules())


def test_another_network_is_refused_and_unchanged() -> None:
    other = nn.Sequential(nn.Linear(2, 2))
    before = [tensor.clone() for tensor in other.state_dict().values()]
    with pytest.raises(ModelError, match=r"^lite\.onnx, which comes with deepscan, does not hold 0\.weight: reinstall"):
        load_embedded(other, "lite")
    assert all(map(torch.equal, before, other.state_dict().values()))


@pytest.mark.parametrize(("scale", "says"), [(0.0, "the same score"), (LARGEST, "scores that are no numbers")])
def test_weights_that_make_every_answer_the_same_or_no_number_are_refused(scale: float, says: str) -> None:
    network = lite.build()
    load_embedded(network, "lite")
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if "bn" in name and name.endswith("weight"):
                tensor.fill_(scale)
    with pytest.raises(ModelError, match=rf"^w\.pth makes lite give different faces {says}: these are not its"):
        make_artifact(network, LITE, WeightsOrigin("w.pth", "0" * 64), Order(), report=LINES.append)
