from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from deepscan.export.onnx_from_module import export_retinaface
from deepscan.models.networks.retinaface import Head, RetinaFace, enlarged
from deepscan.runtime.faces.retinaface import INPUT_NAME, OUTPUT_NAMES, anchors_of
from tests.goldens.golden_weights import recipe
from tests.models.goldens import FOLDER

KEYS: list[tuple[str, list[int], str]] = json.loads((FOLDER / "other_keys" / "retinaface_mnet025.json").read_text())
SEED, PICTURE_SEED = 5, 11
HEADS_ARE_SMALL = [("Head", 0.03)]  # so that scores are neither all 0 nor all 1
# What biubug6's Pytorch_Retinaface answers, in float64, with these weights for the picture below.
GOLDEN = np.load(Path(__file__).with_name("retinaface_golden.npz"))
SIZES = [(64, 64), (67, 99), (97, 33), (1, 1), (40, 200)]


def tensors() -> dict[str, torch.Tensor]:
    """Return seeded weights, with variances around 1."""
    made = {}
    for name, shape, dtype in KEYS:
        if dtype == "float32":
            values = recipe(name, shape, SEED, HEADS_ARE_SMALL)
            made[name] = torch.from_numpy(np.asarray(values + 1 if name.endswith("running_var") else values))
        else:
            made[name] = torch.zeros(shape, dtype=torch.int64)
    return made


def pictures(count: int, height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.Generator(np.random.PCG64(PICTURE_SEED))
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> RetinaFace:
    network = RetinaFace()
    network.load_state_dict(tensors())
    return network.eval()


@pytest.fixture(scope="module")
def exported(network: RetinaFace) -> onnx.ModelProto:
    return export_retinaface(network)


def test_the_parameters_are_those_of_the_published_weights(network: RetinaFace) -> None:
    held = [[name, list(value.shape), str(value.dtype)[6:]] for name, value in network.state_dict().items()]
    assert sorted(held) == sorted([name, shape, dtype] for name, shape, dtype in KEYS)
    assert sum(value.numel() for value in network.parameters()) == 426_608


def test_the_answers_are_the_authors(network: RetinaFace) -> None:
    with torch.inference_mode():
        boxes, scores, points = network(torch.from_numpy(pictures(1, 67, 99)))
    assert np.abs(boxes.numpy() - GOLDEN["boxes"]).max() < 1e-4
    assert np.abs(scores.numpy() - GOLDEN["scores"]).max() < 1e-5
    assert np.abs(points.numpy() - GOLDEN["points"]).max() < 1e-4


def test_the_means_are_subtracted_from_rgb_though_they_are_those_of_bgr(network: RetinaFace) -> None:
    seen: list[torch.Tensor] = []
    hook = network.body.register_forward_pre_hook(lambda _body, inputs: seen.append(inputs[0]))
    blue, green, red = 10, 20, 30
    with torch.inference_mode():
        network(torch.tensor([blue, green, red], dtype=torch.uint8).expand(1, 2, 3, 3))
    hook.remove()
    assert seen[0].shape == (1, 3, 2, 3)
    assert seen[0][0, :, 1, 2].tolist() == [red - 104, green - 117, blue - 123]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_there_is_one_prediction_for_each_anchor(network: RetinaFace, height: int, width: int) -> None:
    with torch.inference_mode():
        boxes, scores, points = network(torch.from_numpy(pictures(2, height, width)))
    count = len(anchors_of(height, width))
    assert (boxes.shape, scores.shape, points.shape) == ((2, count, 4), (2, count), (2, count, 10))


def test_predictions_run_row_by_row_and_over_the_anchors_of_a_place() -> None:
    torch.manual_seed(0)
    head, x = Head(4), torch.rand(1, 64, 3, 5)
    maps = head.conv1x1(x)
    torch.testing.assert_close(head(x)[0, (1 * 5 + 3) * 2 + 1], maps[0, 4:8, 1, 3])


@pytest.mark.parametrize(("small", "large"), [((2, 3), (4, 6)), ((2, 3), (3, 5)), ((1, 1), (1, 2)), ((5, 4), (9, 8))])
def test_maps_are_enlarged_to_the_exact_size_of_the_finer_one(small: tuple[int, int], large: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *small)
    y = enlarged(x, like=torch.zeros(1, 7, *large))
    rows, columns = torch.arange(large[0]) // 2, torch.arange(large[1]) // 2
    torch.testing.assert_close(y, x[:, :, rows][..., columns])


def test_the_exported_graph_takes_pictures_of_any_number_and_size(
    network: RetinaFace, exported: onnx.ModelProto
) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == [INPUT_NAME]
    assert tuple(made.name for made in session.get_outputs()) == OUTPUT_NAMES
    for count, (height, width) in enumerate(SIZES, start=1):
        batch = pictures(count, height, width)
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch))
        for got, wanted in zip(session.run(None, {INPUT_NAME: batch}), expected, strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4)


def test_the_exported_graph_says_nothing_of_the_machine_it_was_made_on(exported: onnx.ModelProto) -> None:
    assert all(not node.metadata_props and not node.doc_string for node in exported.graph.node)
    assert b"deepscan/" not in exported.SerializeToString()
