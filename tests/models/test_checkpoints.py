from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from deepscan.errors import ModelError
from deepscan.models.checkpoints import load_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def weights() -> dict[str, torch.Tensor]:
    """Return weights of `network`, without BatchNorm's step counter, as published ones often are."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape, generator=generator)
        for name, value in network().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path)
    return path


def test_every_tensor_arrives_and_the_hash_of_the_file_is_returned(tmp_path: Path) -> None:
    module, path = network().train(), saved(tmp_path / "w.safetensors", weights())
    assert load_weights(module, path) == hashlib.sha256(path.read_bytes()).hexdigest()
    held = module.state_dict()
    assert all(torch.equal(held[name], value) for name, value in weights().items())
    assert not any(part.training for part in module.modules())


def test_halves_are_widened_exactly(tmp_path: Path) -> None:
    halves = {name: value.half() for name, value in weights().items()}
    module = network()
    load_weights(module, saved(tmp_path / "w.safetensors", halves))
    held = module.state_dict()
    assert {held[name].dtype for name in halves} == {torch.float32}
    assert all(torch.equal(held[name], value.float()) for name, value in halves.items())


def test_weights_with_the_step_counter_of_training_are_taken_too(tmp_path: Path) -> None:
    trained, module = network(), network()
    trained(torch.rand(2, 3, 8, 8))
    load_weights(module, saved(tmp_path / "w.safetensors", trained.state_dict()))
    assert all(torch.equal(module.state_dict()[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize(
    ("gone", "added", "said"),
    [
        (["0.weight"], {}, r"1 missing \(0\.weight\) -"),
        ([], {"extra.bias": (2,)}, r"1 unknown \(extra\.bias\) -"),
        ([], {"2.weight": (2, 4)}, r"1 misshapen \(2\.weight\) -"),
        (["0.weight"], {"0.kernel": (4, 3, 3, 3)}, r"1 missing \(0\.weight\); 1 unknown \(0\.kernel\) -"),
        (list(weights()), {}, r"8 missing \(0\.bias, 0\.weight, 1\.bias, \.\.\.\) -"),
    ],
)
def test_weights_of_something_else_are_refused_with_the_first_differences(
    tmp_path: Path, gone: list[str], added: dict[str, tuple[int, ...]], said: str
) -> None:
    tensors = {name: value for name, value in weights().items() if name not in gone}
    tensors |= {name: torch.zeros(shape) for name, shape in added.items()}
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=rf"w\.safetensors does not hold the weights of Sequential: .*{said}"):
        load_weights(module, saved(tmp_path / "w.safetensors", tensors))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("data", [b"", b"not safetensors at all", save(weights())[:-5], save(weights())[3:]])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"w\.safetensors is not a safetensors file"):
        load_weights(network(), path)


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be read .*: check the path of the weights"):
        load_weights(network(), tmp_path / name)
