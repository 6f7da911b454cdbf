from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepscan.errors import UsageError
from deepscan.models.checkpoints.checkpoints import load_weights
from deepscan.models.lite import LITE
from deepscan.models.networks.efficientnet import EfficientNetLite, scaled_channels
from deepscan.models.registry import BUILTIN, find_detector

WEIGHTS = Path(__file__).parents[2] / "weights" / "lite2.safetensors"
# Computed by another implementation from the same weights; see the detector's model card.
GOLDEN = np.load(Path(__file__).with_name("lite_golden.npz"))


@pytest.fixture(scope="module")
def network() -> EfficientNetLite:
    network = EfficientNetLite(width=1.1, depth=1.2)
    load_weights(network, WEIGHTS, name="lite")
    return network


def normalized(faces: torch.Tensor) -> torch.Tensor:
    return (faces.permute(0, 3, 1, 2).float() - 127.0) / 128.0


def test_logits_are_those_of_the_reference(network: EfficientNetLite) -> None:
    with torch.inference_mode():
        logits = network(normalized(torch.from_numpy(GOLDEN["faces"])))
    assert logits.shape == (4,)
    assert np.abs(logits.numpy() - GOLDEN["logit"]).max() < 1e-4


def test_the_logit_of_a_face_depends_on_its_channel_order(network: EfficientNetLite) -> None:
    faces = torch.from_numpy(np.ascontiguousarray(GOLDEN["faces"][..., ::-1]))
    with torch.inference_mode():
        logits = network(normalized(faces))
    assert np.abs(logits.numpy() - GOLDEN["logit"]).min() > 2e-3


def test_lite2_has_the_published_number_of_weights(network: EfficientNetLite) -> None:
    held = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert sum(value.numel() for value in held.values()) == 4_870_449
    assert len(network.blocks) == 21


def test_the_picture_shrinks_and_widens_as_in_the_paper() -> None:
    network = EfficientNetLite(width=1.1, depth=1.2).eval()
    shapes: list[tuple[int, ...]] = []
    for part in (network.stem, *network.blocks, network.head):
        part.register_forward_hook(lambda _part, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        logit = network(torch.zeros(2, 3, 224, 224))
    assert logit.shape == (2,)
    assert [shape for number, shape in enumerate(shapes) if shape != shapes[number - 1]] == [
        *((32, 112, 112), (16, 112, 112), (24, 56, 56), (48, 28, 28), (88, 14, 14)),
        *((120, 14, 14), (208, 7, 7), (352, 7, 7), (1280, 7, 7)),
    ]


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(32, 1.0, 32), (24, 1.1, 24), (40, 1.1, 48), (80, 1.1, 88), (320, 1.1, 352), (10, 1.1, 16), (30, 1.0, 30)],
)
def test_scaled_channels_are_multiples_of_eight(channels: int, width: float, expected: int) -> None:
    assert scaled_channels(channels, width) == expected


def test_a_detector_is_found_by_its_name() -> None:
    assert find_detector("lite").spec is LITE
    assert isinstance(find_detector("lite").build(), nn.Module)
    assert all(name == detector.spec.name for name, detector in BUILTIN.items())


def test_an_unknown_detector_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="No detector is called 'x': use one of lite"):
        find_detector("x")


def test_another_training_of_a_detector_is_a_variant_of_it() -> None:
    assert find_detector("recce", "deepfakebench").spec is find_detector("recce-deepfakebench").spec
    with pytest.raises(UsageError, match=r"^lite has no variant 'deepfakebench': leave out --variant .*altfreezing"):
        find_detector("lite", "deepfakebench")
    with pytest.raises(UsageError, match="No detector is called 'x': use one of lite"):
        find_detector("x", "deepfakebench")
