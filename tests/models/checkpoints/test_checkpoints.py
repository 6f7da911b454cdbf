from __future__ import annotations

import hashlib
import os
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from deepscan.errors import ModelError
from deepscan.models.checkpoints.checkpoints import Checkpoint, fitted, load_weights, read_tensors
from deepscan.models.checkpoints.recognize import places
from deepscan.models.registry import find_detector

Tensors = dict[str, torch.Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def weights() -> Tensors:
    """Return weights of `network`, without BatchNorm's step counter, as published ones often are."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(value.shape, generator=generator)
        for name, value in network().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def saved(path: Path, tensors: Tensors) -> Path:
    save_file(tensors, path)
    return path


def torch_saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def old_torch_saved(path: Path, content: object) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def held_is(module: nn.Module, tensors: Tensors) -> bool:
    held = module.state_dict()
    return all(torch.equal(held[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("write", [saved, torch_saved, old_torch_saved])
def test_every_tensor_arrives_from_every_format_whatever_the_file_is_called(
    tmp_path: Path, write: Callable[[Path, Tensors], Path]
) -> None:
    path = write(tmp_path / "weights.bin", weights())
    module = network().train()
    loaded = load_weights(module, path, name="small")
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.wrapping, loaded.dropped) == ("", ())
    assert held_is(module, weights())
    assert not any(part.training for part in module.modules())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_that_of_the_network(tmp_path: Path, kind: torch.dtype) -> None:
    given_ = {name: value.to(kind) for name, value in weights().items()}
    module = network()
    load_weights(module, saved(tmp_path / "w", given_), name="small")
    held = module.state_dict()
    assert {held[name].dtype for name in given_} == {torch.float32}
    assert all(torch.equal(held[name], value.float()) for name, value in given_.items())


def test_weights_with_the_step_counter_of_training_are_taken_too(tmp_path: Path) -> None:
    trained, module = network(), network()
    trained(torch.rand(2, 3, 8, 8))
    load_weights(module, saved(tmp_path / "w", trained.state_dict()), name="small")
    assert held_is(module, trained.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "module.network.", "a.b.c."])
@pytest.mark.parametrize("inner", ["", "resnet."])
@pytest.mark.parametrize("outer", [None, "state_dict", "model", "network"])
def test_wrapping_is_taken_off_and_what_all_parameters_share_is_put_in_front(
    tmp_path: Path, outer: str | None, inner: str, prefix: str
) -> None:
    tensors = {f"{prefix}{inner}{name}": value for name, value in weights().items()}
    path = torch_saved(tmp_path / "model.pth", {outer: tensors} if outer else tensors)
    module = nn.ModuleDict({"resnet": network()})
    loaded = load_weights(module, path, name="small")
    assert held_is(module, {f"resnet.{name}": value for name, value in weights().items()})
    steps = [f"under '{outer}'"] * bool(outer) + [f"without '{prefix}'"] * bool(prefix)
    assert loaded.wrapping == ", ".join(steps + ["with 'resnet.' in front"] * (not inner))


def optimizer_state() -> dict[str, Any]:
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


HONEST: dict[str, dict[str, Any]] = {
    "as CADDM's": {"network": weights(), "opt_state": optimizer_state(), "epoch": 3},
    "as RECCE's": {
        "step": 7,
        "best_metric": np.float64(0.99),
        "eval_metric": "AUC",
        "model": weights(),
        "optimizer": optimizer_state(),
        "scheduler": {"milestones": Counter([2, 4]), "_last_lr": [1e-3]},
    },
    "options": {"state_dict": weights(), "args": Namespace(lr=0.1, names=["a"], inner=Namespace(gpu=0))},
    "history": {"state_dict": weights(), "losses": np.arange(3.0), "best": np.int64(3), "type": np.dtype("f4")},
    "a lone number": {"state_dict": weights(), "epoch": torch.tensor(3)},
    "a state dict in a dict of models": {"model": {"network": weights(), "name": "small"}},
}


@pytest.mark.parametrize("content", HONEST.values(), ids=HONEST)
@pytest.mark.parametrize("write", [torch_saved, old_torch_saved])
def test_what_training_stores_beside_the_weights_does_no_harm(
    tmp_path: Path, content: dict[str, Any], write: Callable[[Path, object], Path]
) -> None:
    module = network()
    load_weights(module, write(tmp_path / "w.pkl", content), name="small")
    assert held_is(module, weights())


def test_numbers_of_an_older_numpy_do_no_harm(tmp_path: Path) -> None:
    path = old_torch_saved(tmp_path / "w", {"model": weights(), "best": np.float64(0.5), "all": np.arange(3)})
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    data = path.read_bytes()
    assert data.count(new) == 2
    path.write_bytes(data.replace(new, old))
    load_weights(network(), path, name="small")


@pytest.mark.parametrize(
    ("gone", "added", "said"),
    [
        (["0.weight"], {}, r"1 missing \(0\.weight\) - "),
        ([], {"extra.bias": torch.zeros(2)}, r"1 unknown \(extra\.bias\) - "),
        (
            [],
            {"2.weight": torch.zeros(2, 4)},
            r"1 of another shape or type \(2\.weight is \[2, 4\], not \[2, 4, 1, 1\]\) ",
        ),
        ([], {"1.bias": torch.zeros(4).long()}, r"1 of another shape or type \(1\.bias is int64, not float32\) - "),
        (["0.weight"], {"0.kernel": torch.zeros(4, 3, 3, 3)}, r"1 missing \(0\.weight\); 1 unknown \(0\.kernel\) - "),
        (
            list(weights()),
            {"x": torch.zeros(1)},
            r"8 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\); 1 unknown \(x\) ",
        ),
    ],
)
def test_weights_of_something_else_are_refused_with_the_first_differences(
    tmp_path: Path, gone: list[str], added: Tensors, said: str
) -> None:
    tensors = {name: value for name, value in weights().items() if name not in gone} | added
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=rf"w does not hold the weights of small: {said}"):
        load_weights(module, saved(tmp_path / "w", tensors), name="small")
    assert held_is(module, before)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_numbers_that_are_not_finite_are_refused_with_the_name_of_the_tensor(tmp_path: Path, number: float) -> None:
    spoilt = weights()["2.weight"].double()
    spoilt[1, 2] = number
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match=r"2\.weight in .*w has numbers that are not finite"):
        load_weights(module, saved(tmp_path / "w", weights() | {"2.weight": spoilt}), name="small")
    assert held_is(module, before)


@pytest.mark.parametrize("name", ["0.weight", "2.weight"])
@pytest.mark.parametrize("number", [0.0, 0.5, -3.0])
def test_kernels_and_matrices_of_one_number_are_refused_with_the_name(tmp_path: Path, name: str, number: float) -> None:
    spoilt = weights() | {name: torch.full_like(weights()[name], number)}
    with pytest.raises(ModelError, match=rf"{name} in .*w is {number:g} everywhere, which no training produces"):
        load_weights(network(), saved(tmp_path / "w", spoilt), name="small")


def test_vectors_of_one_number_are_in_working_checkpoints_and_are_taken(tmp_path: Path) -> None:
    vectors = {name: torch.zeros_like(value) for name, value in weights().items() if value.ndim < 2}
    assert vectors
    module = network()
    load_weights(module, saved(tmp_path / "w", weights() | vectors), name="small")
    assert held_is(module, weights() | vectors)


@pytest.mark.parametrize("name", ["lite", "altfreezing", "recce", "caddm-resnet34"])
def test_a_detectors_file_of_nothing_but_zeros_is_refused(tmp_path: Path, name: str) -> None:
    build = find_detector(name).build
    empty = {place: torch.zeros(value.shape, dtype=value.dtype) for place, value in places(build).items()}
    with pytest.raises(ModelError, match="is 0 everywhere"):
        fitted(Checkpoint(empty, "", ""), places(build), name=name, path=tmp_path / "zeros.pth")


def test_tensors_without_numbers_are_refused(tmp_path: Path) -> None:
    path = torch_saved(tmp_path / "w", {name: value.to("meta") for name, value in weights().items()})
    with pytest.raises(ModelError, match=r"0\.weight in .*w has a shape but no values"):
        load_weights(network(), path, name="small")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty: download"),
        (
            b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41" + bytes(500),
            "has no known format of weights",
        ),
        (b"any text", "has no known format of weights"),
        (b"any text{", "has no known format of weights"),
        (b"cos\nsystem\n(S'true'\ntR.", "has no known format of weights"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>Sign in", "is a web page, not weights: open the page"),
        (b"<HTML>Quota exceeded</HTML>", "is a web page, not weights: open the page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "only points to weights in Git LFS"),
        (b"PK\x03\x04 and then nothing of the kind", "is damaged or cut short: download"),
        (b"\x80\x02}q\x00.", "is a pickle that torch.save did not write"),
        (b"\x20\x00\x00\x00\x00\x00\x00\x00{not a header", "is damaged or cut short .*: download"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"w\.pth {said}"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["missing.pth", "file/below"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match=r"cannot be read .*: check the path of the weights"):
        read_tensors(tmp_path / name)


def test_folders_and_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelError, match="is not a file: give the file of the weights"):
            read_tensors(path)


def test_a_name_that_the_libraries_cannot_open_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/w\xff"))
    path.write_bytes(saved(tmp_path / "w", weights()).read_bytes())
    with pytest.raises(ModelError, match="is not valid UTF-8: rename it"):
        read_tensors(path)


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have us use its successor
        traced = torch.jit.trace(network().eval(), torch.rand(1, 3, 8, 8))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt is a TorchScript program, which deepscan does not run: get"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize("write", [saved, torch_saved, old_torch_saved])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_refused(
    tmp_path: Path, write: Callable[[Path, Tensors], Path], kept: float
) -> None:
    data = write(tmp_path / "whole", weights()).read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ModelError, match=r"cut (is|has)"):
        load_weights(network(), tmp_path / "cut", name="small")


def test_a_number_that_changed_on_the_way_is_noticed(tmp_path: Path) -> None:
    data = torch_saved(tmp_path / "w", weights()).read_bytes()
    numbers = weights()["0.weight"].numpy().tobytes()
    assert data.count(numbers) == 1
    (tmp_path / "w").write_bytes(data.replace(numbers, numbers[:-1] + bytes([numbers[-1] ^ 1])))
    with pytest.raises(ModelError, match="w is damaged or cut short"):
        read_tensors(tmp_path / "w")
