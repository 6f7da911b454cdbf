from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from deepscan.errors import ModelError, UsageError
from deepscan.models.checkpoints.checkpoints import load_weights, read_tensors
from deepscan.models.checkpoints.recognize import likeness, places, recognize
from deepscan.models.registry import BUILTIN, FACE_DETECTORS
from tests.models.goldens import FOLDER

PATH = Path("w.pth")
LITE = Path(__file__).parents[3] / "weights" / "lite2.safetensors"
AUTHORS = {
    "altfreezing": "altfreezing/keys",
    "ftcn": "ftcn/keys",
    "hff": "hff/keys",
    "recce": "recce/keys",
    "caddm-resnet34": "caddm_resnet34/keys",
    "caddm-efficientnet-b3": "caddm_efficientnet_b3/keys",
    "caddm-efficientnet-b4": "caddm_efficientnet_b4/keys",
    "retinaface": "other_keys/retinaface_mnet025",
}
DEEPFAKEBENCH = {
    "altfreezing": "other_keys/deepfakebench_altfreezing",
    "ftcn": "other_keys/deepfakebench_ftcn",
    "hff": "other_keys/deepfakebench_srm",
    "recce": "other_keys/deepfakebench_recce",
}


@cache
def listed(file: str) -> dict[str, torch.Tensor]:
    """Return tensors without numbers by the names, shapes and types that a list in the goldens gives."""
    keys = json.loads((FOLDER / f"{file}.json").read_text())
    return {name: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for name, shape, kind in keys}


def prefixed(file: str, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in listed(file).items()}


@pytest.mark.parametrize("prefix", ["", "module.", "module.network."])
@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_files_are_recognized_under_any_prefix(name: str, prefix: str) -> None:
    assert recognize(prefixed(AUTHORS[name], prefix), PATH) == name


@pytest.mark.parametrize("name", ["altfreezing", "ftcn"])
def test_video_detectors_are_recognized_without_their_own_prefix(name: str) -> None:
    tensors = {key.removeprefix("resnet."): value for key, value in listed(AUTHORS[name]).items()}
    assert recognize(tensors, PATH) == name


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", DEEPFAKEBENCH)
def test_deepfakebenchs_files_are_recognized_when_the_variant_is_given(name: str, prefix: str) -> None:
    tensors = prefixed(DEEPFAKEBENCH[name], prefix)
    assert recognize(tensors, PATH, variant="deepfakebench") == f"{name}-deepfakebench"


@pytest.mark.parametrize("name", ["hff", "recce"])
def test_deepfakebenchs_files_are_refused_without_the_variant_where_names_tell(name: str) -> None:
    said = rf"w\.pth holds DeepfakeBench's weights of {name}: add --variant deepfakebench\.$"
    with pytest.raises(ModelError, match=said):
        recognize(listed(DEEPFAKEBENCH[name]), PATH)


@pytest.mark.parametrize("name", ["hff", "recce", "caddm-resnet34", "retinaface"])
def test_other_weights_are_refused_when_the_variant_is_given(name: str) -> None:
    said = rf"w\.pth holds weights of {name} that are not DeepfakeBench's: leave out --variant\.$"
    with pytest.raises(ModelError, match=said):
        recognize(listed(AUTHORS[name]), PATH, variant="deepfakebench")


def test_a_variant_that_there_is_not_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no variant 'mine': leave out --variant, or use deepfakebench"):
        recognize({}, PATH, variant="mine")


def test_trained_weights_are_recognized_by_a_module_of_the_same_shapes() -> None:
    assert recognize(read_tensors(LITE).tensors, LITE) == "lite"


def test_networks_are_not_built_in_memory_to_be_compared() -> None:
    tensors = [value for detector in BUILTIN.values() for value in places(detector.build).values()]
    assert sum(value.numel() for value in tensors) > 700e6
    assert sum(value.numel() for value in tensors if not value.is_meta) < 1e6


def test_weights_that_fit_two_detectors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        linear = dataclasses.replace(BUILTIN["lite"], build=lambda: nn.Linear(3, 7))
        monkeypatch.setitem(BUILTIN, name, linear)
    with pytest.raises(ModelError, match=r"w\.pth fits several detectors \(one, two\): "):
        recognize(nn.Linear(3, 7).state_dict(), PATH)


def shaped(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.empty(shape, device="meta") for name, shape in shapes.items()}


XCEPTION = shaped(conv1__weight=(32, 3, 3, 3), block1__rep__0__conv1__weight=(64, 1, 3, 3))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (XCEPTION | shaped(fc__weight=(1000, 2048)), "these are the ImageNet weights of Xception"),
        (XCEPTION | shaped(last_linear__weight=(1000, 2048)), "these are the ImageNet weights of Xception"),
        (
            shaped(module___conv_stem__weight=(40, 3, 3, 3), module___fc__weight=(1000, 1536)),
            "these are the ImageNet weights of an EfficientNet",
        ),
        (
            shaped(layer1__0__conv1__weight=(64, 64, 3, 3), fc__weight=(1000, 512)),
            "these are the ImageNet weights of a ResNet",
        ),
        (
            shaped(conv_stem__weight=(48, 3, 3, 3), classifier__weight=(1000, 1792)),
            "these are the ImageNet weights of an EfficientNet",
        ),
        (
            shaped(features__0__0__weight=(48, 3, 3, 3), classifier__1__weight=(1000, 1792)),
            "these are ImageNet weights from torchvision",
        ),
        (
            {key.removeprefix("resnet."): value for key, value in listed(AUTHORS["altfreezing"]).items()}
            | shaped(head__projection__weight=(400, 2048), head__projection__bias=(400,)),
            "these are the Kinetics weights of a ResNet for actions",
        ),
        (
            shaped(module__linear7__conv__weight=(1280, 1, 7, 7), module__linear1__conv__weight=(136, 1280, 1, 1)),
            "these are the weights of a network for facial landmarks",
        ),
        (
            listed("other_keys/deepfakebench_xception"),
            "these are the weights of DeepfakeBench's xception, which deepscan does not have",
        ),
        (
            listed("other_keys/deepfakebench_efficientnetb4"),
            "these are the weights of DeepfakeBench's efficientnetb4, which deepscan does not have",
        ),
        (
            {key: value for key, value in listed(AUTHORS["recce"]).items() if key != "fc.bias"},
            r"the nearest is recce \(311 of 312 tensors agree; 1 missing \(fc\.bias\)\)",
        ),
        (
            listed(DEEPFAKEBENCH["recce"]) | shaped(stray=(1,)),
            r"the nearest is recce-deepfakebench \(312 of 312 tensors agree; 1 unknown \(stray\)\)",
        ),
        (shaped(a__weight=(2, 3)), "no detector has such names and shapes"),
        ({}, "no detector has such names and shapes"),
    ],
)
def test_what_fits_no_detector_is_guessed(tensors: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ModelError, match=rf"^w\.pth fits no detector: {said}: give the weights of a detector that"):
        recognize(tensors, PATH)


@pytest.mark.parametrize(
    ("file", "asked", "said"),
    [
        (DEEPFAKEBENCH["recce"], "recce", "these are DeepfakeBench's weights of recce: add --variant deepfakebench"),
        (DEEPFAKEBENCH["recce"], "hff", "these are DeepfakeBench's weights of recce: give those of hff"),
        (AUTHORS["hff"], "hff-deepfakebench", "these are the weights of hff: leave out --variant"),
        (AUTHORS["ftcn"], "altfreezing", "these are the weights of ftcn: give those of altfreezing"),
        (AUTHORS["retinaface"], "lite", "these are the weights of the face detector retinaface: give those of lite"),
    ],
)
def test_another_detector_than_the_one_asked_for_is_named(file: str, asked: str, said: str) -> None:
    assert likeness(listed(file), asked) == said


def test_differences_are_not_reported_twice() -> None:
    tensors = {key: value for key, value in listed(AUTHORS["recce"]).items() if key != "fc.bias"}
    assert likeness(tensors, "recce") == "the nearest is recce (311 of 312 tensors agree): give those of recce"


def test_deepfakebenchs_names_find_their_places_when_they_are_loaded(tmp_path: Path) -> None:
    path, module = tmp_path / "recce_best.pth", nn.ModuleDict({"encoder": nn.Linear(2, 3)})
    weight, bias = torch.rand(3, 2), torch.rand(3)
    unused = {"backbone.conv1.weight": torch.rand(4)}
    torch.save({"model.encoder.weight": weight, "model.encoder.bias": bias, **unused}, path)
    loaded = load_weights(module, path, name="recce-deepfakebench")
    held = module.state_dict()
    assert torch.equal(held["encoder.weight"], weight)
    assert torch.equal(held["encoder.bias"], bias)
    assert loaded.dropped == tuple(unused)


def test_a_file_of_another_detector_is_refused_by_its_name() -> None:
    said = r"of small: 2 missing \(weight, bias\); .* unknown .* - these are the weights of lite: give those of small"
    with pytest.raises(ModelError, match=said):
        load_weights(nn.Linear(2, 2), LITE, name="small")


def test_all_face_detectors_differ_from_all_detectors() -> None:
    assert not FACE_DETECTORS.keys() & BUILTIN.keys()
