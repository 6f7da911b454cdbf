"""The torch backend: the scores of ONNX Runtime, from the network itself; see test_backend_contract.py for the rest."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from deepscan.errors import MachineError, ModelError
from deepscan.installing import install_extra
from deepscan.models.registry import BUILTIN, find_detector
from deepscan.runtime.artifacts.artifacts import Artifact, WeightsFile, load_artifact
from deepscan.runtime.backends.sessions import Session
from deepscan.runtime.backends.torch_backend import CompiledExecution, SingleExecution, TorchBackend
from deepscan.runtime.backends.torch_network import artifact_graph, network_of
from tests.models.goldens import golden, golden_graph, golden_network
from tests.runtime.backends.manifests import manifest_in
from tests.runtime.graphs import small_clip_network, stored_artifact
from tests.runtime.tiny_detectors import TINY_CLIP

GOLDEN = Path(__file__).parents[2] / "models" / "lite_golden.npz"
SAME = 1e-5
THREADS = 1


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recipe_artifact(name: str, form: Literal["3d", "2d"] | None, folder: Path) -> Artifact:
    """Export a detector with its golden weights."""
    spec = find_detector(name).spec
    return stored_artifact(golden_network(name), spec, folder, form=form, graph=golden_graph(name, form))


def faces() -> NDArray[np.uint8]:
    with np.load(GOLDEN) as kept:
        crops: NDArray[np.uint8] = kept["faces"]
    return crops


def scores(artifact: Artifact, logits: NDArray[np.float32]) -> list[float]:
    return [artifact.manifest.spec.calibration.score(logit) for logit in logits.tolist()]


def expected_scores(artifact: Artifact, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = Session(artifact.model, source="golden", device="cpu", threads=THREADS)
    found: NDArray[np.float32] = session.run(["score"], {artifact.manifest.spec.input_name: batch})[0]
    return found


def assert_scores_are_those_of_onnxruntime(artifact: Artifact, items: NDArray[np.uint8]) -> None:
    backend = TorchBackend(artifact, device="cpu", threads=THREADS, precision="fp32")
    logits = backend.logits(items)
    backend.close()
    assert logits.dtype == np.float32
    assert scores(artifact, logits) == pytest.approx(expected_scores(artifact, items), abs=SAME)


def test_the_embedded_detector_gives_the_scores_of_onnxruntime() -> None:
    assert_scores_are_those_of_onnxruntime(load_artifact("lite"), faces())


@pytest.mark.slow  # not for their size, but for the seconds that their exports take
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("altfreezing", "3d"),
        ("altfreezing", "2d"),
        ("ftcn", "3d"),
        ("ftcn", "2d"),
        ("hff", None),
        ("recce", None),
        ("caddm-resnet34", None),
    ],
)
def test_every_detector_gives_the_scores_of_onnxruntime_and_can_be_compiled(
    name: str, form: Literal["3d", "2d"] | None, tmp_path: Path
) -> None:
    inputs = golden(name.replace("-", "_")).inputs()
    artifact = recipe_artifact(name, form, tmp_path)
    # One clip is as much work as many crops.
    items = inputs[:1] if form else inputs
    # What the compiler sees, without the kernels that it makes of it: the operations of the network as it is.
    compiled = torch.compile(artifact_graph(artifact), backend="eager", fullgraph=True)
    found = SingleExecution(compiled, threads=THREADS)(items)
    assert scores(artifact, found) == pytest.approx(expected_scores(artifact, items), abs=SAME)


def test_the_embedded_artifact_gives_the_weights_that_it_was_made_from_bit_for_bit() -> None:
    published = load_file(Path(__file__).parents[3] / "weights" / "lite2.safetensors")
    embedded = network_of(load_artifact("lite"))
    held = embedded.state_dict()
    assert all(torch.equal(held[name], tensor) for name, tensor in published.items())
    assert not any(part.training for part in embedded.modules())


def changed(artifact: Artifact, **changes: object) -> Artifact:
    return dataclasses.replace(artifact, manifest=msgspec.structs.replace(artifact.manifest, **changes))


def test_without_its_own_weights_beside_it_an_artifact_is_refused(tmp_path: Path) -> None:
    lite = load_artifact("lite")
    alone = dataclasses.replace(lite, folder=tmp_path)
    with pytest.raises(ModelError, match=r"^lite\.onnx has no weights beside it, which torch needs: export .*\.$"):
        network_of(alone)
    (tmp_path / "w.safetensors").write_bytes(save({"other": torch.zeros(2)}))
    described = changed(alone, network_weights=WeightsFile(file="w.safetensors", sha256="0" * 64))
    with pytest.raises(ModelError, match=r"w\.safetensors does not hold the weights that were written to it: .*\.$"):
        network_of(described)
    stranger = changed(lite, spec=msgspec.structs.replace(lite.manifest.spec, name="stranger"))
    with pytest.raises(ModelError, match=r"^torch cannot run lite\.onnx, as no .* the network of stranger: .*\.$"):
        network_of(stranger)


def test_a_damaged_package_is_reported() -> None:
    lite = load_artifact("lite")
    model = onnx.load_model_from_string(lite.model)
    model.graph.initializer[0].name = "lost"
    with pytest.raises(ModelError, match=r"^lite\.onnx, which comes with deepscan, does not hold .*: reinstall"):
        network_of(dataclasses.replace(lite, model=model.SerializeToString()))


def live_storages() -> dict[int, int]:
    """The memory of all tensors that Python knows, but for those of an export, which have none: bytes by address."""
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    return {found.untyped_storage().data_ptr(): found.untyped_storage().nbytes() for found in tensors}


def test_weights_are_in_memory_once_and_not_at_all_when_it_is_closed() -> None:
    artifact = load_artifact("lite")
    tensors = network_of(artifact).state_dict().values()
    weight_bytes = sum(tensor.nbytes for tensor in tensors)
    del tensors
    gc.collect()
    before = live_storages()
    backend = TorchBackend(artifact, device="cpu", threads=THREADS, precision="fp32")
    backend.logits(faces()[:1])
    gc.collect()
    held = {address: size for address, size in live_storages().items() if address not in before}
    assert sum(held.values()) == pytest.approx(weight_bytes, rel=0.001)
    backend.close()
    assert not held.keys() & live_storages().keys()


def test_on_a_processor_halves_are_widened_and_quantized_artifacts_are_refused() -> None:
    for precision in ("fp32", "fp16"):
        assert TorchBackend.precisions(manifest_in(precision), "cpu") == ("fp32",)
    for device in ("cpu", "cuda"):
        assert TorchBackend.precisions(manifest_in("int8"), device) == ()


def test_without_torch_it_can_do_nothing_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "deepscan.runtime.backends.torch_network")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert TorchBackend.precisions(manifest_in("fp32"), "cpu") == ()
    assert TorchBackend.precisions(manifest_in("fp16"), "cuda") == ()
    remedy = re.escape(install_extra("export"))
    with pytest.raises(MachineError, match=rf"^torch cannot be loaded \(.*\): run `{remedy}`\.$"):
        TorchBackend(load_artifact("lite"), device="cpu", threads=1, precision="fp32")


class Bright(nn.Module):
    """The mean of each picture, and its half."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = pixels.float().mean((1, 2, 3))
        return mean, mean / 2


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_items_go_one_by_one_and_may_not_be_written_to() -> None:
    batch = pictures(5)
    batch.flags.writeable = False
    found = SingleExecution(Bright(), threads=THREADS)(batch)
    assert found == pytest.approx(batch.mean((1, 2, 3)), rel=1e-6)


def in_a_thread_with_other_settings(execution: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> list[int]:
    """Call from a thread that had its number of threads before this one changed its own; return that it has then."""
    ready, changed = threading.Event(), threading.Event()
    seen: list[int] = []

    def use() -> None:
        torch.ones(10).sum()
        ready.set()
        changed.wait()
        execution(pictures(1))
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=use)
    thread.start()
    ready.wait()
    torch.set_num_threads(1)
    changed.set()
    thread.join()
    return seen


def test_it_takes_as_many_threads_as_it_is_told_whichever_thread_calls() -> None:
    assert in_a_thread_with_other_settings(SingleExecution(Bright(), threads=3)) == [3]


@pytest.mark.slow  # compiles
def test_compiled_batches_of_any_size_give_what_each_item_gives() -> None:
    compiled = CompiledExecution(Bright(), device="cpu", item_shape=(8, 8, 3), most=8, threads=3)
    with torch.compiler.set_stance("fail_on_recompile"):  # all was compiled on loading
        for count in (8, 1, 3, 2, 7):
            batch = pictures(count)
            assert compiled(batch) == pytest.approx(batch.mean((1, 2, 3)), rel=1e-6)
        assert in_a_thread_with_other_settings(compiled) == [3]


def test_sizes_that_the_memory_is_too_small_for_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(Bright):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if len(pixels) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(pixels)

    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    assert CompiledExecution(Large(), device="cpu", item_shape=(8, 8, 3), most=64, threads=1).sizes == (1, 4)


@pytest.mark.slow  # compiles
def test_many_detectors_can_be_compiled_in_one_process() -> None:
    shapes = [(8, 8, 3), (8, 4, 3), (4, 8, 3), (6, 6, 3), (6, 4, 3)]
    loaded = [CompiledExecution(Bright(), device="cpu", item_shape=shape, most=4, threads=THREADS) for shape in shapes]
    batches = [np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8) for shape in shapes]
    with ThreadPoolExecutor(1) as other:  # detectors are loaded in another thread than they run in
        found = list(other.map(lambda compiled, batch: compiled(batch), loaded, batches))
    for values, batch in zip(found, batches, strict=True):
        assert values == pytest.approx(batch.mean((1, 2, 3)), rel=1e-6)


@pytest.mark.slow  # compiles
def test_a_compiled_detector_gives_the_scores_of_onnxruntime_and_its_memory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(find_detector("ftcn"), spec=TINY_CLIP, build=small_clip_network)
    monkeypatch.setitem(BUILTIN, TINY_CLIP.name, small)
    artifact = stored_artifact(small_clip_network(), TINY_CLIP, tmp_path)
    shape = artifact.manifest.spec.item_shape
    graph = artifact_graph(artifact)
    weights = [weakref.ref(value) for value in graph.parameters()]
    clips = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    for half, tolerance in ((False, SAME), (True, 0.01)):
        compiled = CompiledExecution(graph, device="cpu", half=half, item_shape=shape, most=4, threads=THREADS)
        for batch in (clips, clips[1:2]):
            found = compiled(batch)
            assert found.dtype == np.float32
            assert scores(artifact, found) == pytest.approx(expected_scores(artifact, batch), abs=tolerance)
    del graph, compiled
    gc.collect()
    assert not [weight for weight in weights if weight() is not None]


@pytest.mark.slow  # loads the compiler's Python side
def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    program = (
        "from tests.runtime.backends.test_torch_backend import Bright; "
        "from deepscan.runtime.backends.torch_backend import CompiledExecution; "
        "CompiledExecution(Bright(), device='cpu', item_shape=(8, 8, 3), most=1, threads=1)"
    )
    places = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **places}, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        r"deepscan\.errors\.MachineError: What torch compiles cannot be run here \(.*No working C\+\+ compiler.*\): "
        r"install a C\+\+ compiler and Python's headers, or use another backend\.",
        last,
    )


@pytest.mark.gpu
def test_on_cuda_scores_are_those_of_the_processor_and_memory_is_given_back() -> None:
    artifact, items = load_artifact("lite"), faces()
    assert TorchBackend.precisions(manifest_in("fp32"), "cuda") == ("fp32",)
    assert TorchBackend.precisions(manifest_in("fp16"), "cuda") == ("fp16",)
    left = []
    for _ in range(2):
        backend = TorchBackend(artifact, device="cuda", threads=1, precision="fp32")
        for size in (len(items), 1, len(items) - 1):
            logits = backend.logits(items[:size])
            assert scores(artifact, logits) == pytest.approx(expected_scores(artifact, items[:size]), abs=1e-4)
        backend.close()
        left.append(torch.cuda.memory_allocated())
    # CUDA's libraries keep what they need for themselves.
    assert left[0] == left[1]
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
