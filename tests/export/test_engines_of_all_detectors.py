"""Every detector, in half precision and in int8, is really built for every architecture, and nothing is complained of.

The weights are the goldens' or random, and so are the ranges of int8: neither changes what TensorRT is asked to build.
What it computes needs a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from deepscan.calibration.placement import placed, quantizable
from deepscan.calibration.qdq import with_qdq
from deepscan.export.engine_builder import build_engine
from deepscan.export.forms import graph_of
from deepscan.export.half import halved
from deepscan.export.packing import packed
from deepscan.export.simplify import folded_batch_norm
from deepscan.export.tensor_values import Range
from deepscan.models.registry import BUILTIN, find_detector
from deepscan.runtime.artifacts.artifacts import Artifact, Form
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.system.files import HOME_VARIABLE
from deepscan.spec import DetectorSpec
from tests.models.goldens import golden_graph
from tests.runtime.graphs import narrow_caddm
from tests.runtime.tiny_detectors import ORIGIN

pytestmark = pytest.mark.slow

ARCHITECTURES = ("8.0", "8.6", "8.9", "12.0")
LARGEST_BATCH = 4
WORKSPACE = 8 << 30
# Others' trainings of a detector, such as hff-deepfakebench, have the same layers; so do CADDM's EfficientNets, whether
# wide or narrow.
DETECTORS = [name for name in BUILTIN if not name.endswith(("-deepfakebench", "-b4"))]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    yield
    for plan in tmp_path.rglob("*.plan"):  # pytest keeps folders, and these are gigabytes
        plan.unlink()


def graph(name: str, form: Form | None) -> onnx.ModelProto:
    """Return the graph of a detector as an export for an engine makes it."""
    spec = find_detector(name).spec
    if name == "lite":
        model = graph_of(find_detector(name).build().eval(), spec)
    elif name == "caddm-efficientnet-b3":
        model = graph_of(narrow_caddm(), spec)
    else:
        model = golden_graph(name, form)
    return folded_batch_norm(model)


def in_half(model: onnx.ModelProto, spec: DetectorSpec) -> Artifact:
    return packed(halved(GraphIndex(model), ()), spec, ORIGIN, precision="fp16")


def in_int8(model: onnx.ModelProto, spec: DetectorSpec) -> Artifact:
    index = GraphIndex(model)
    placement = placed(index, quantizable(index, "symmetric"), "symmetric")
    assert placement.layers
    ranges = {root: Range(-3.0, 3.0) for root in placement.roots.values()}
    return packed(with_qdq(index, placement, ranges, "symmetric"), spec, ORIGIN, precision="int8")


def refuse_complaints(artifact: Artifact) -> None:
    for architecture in ARCHITECTURES:
        engine = build_engine(
            artifact,
            flavor="tensorrt-rtx",
            compute_capability=architecture,
            max_batch=LARGEST_BATCH,
            workspace_bytes=WORKSPACE,
        )
        assert engine.manifest.warnings == (), architecture
        assert engine.manifest.size_bytes > artifact.manifest.size_bytes / 2
        engine.plan_path.unlink()


@pytest.mark.parametrize("name", DETECTORS)
def test_in_half_precision_and_in_int8(name: str) -> None:
    model = graph(name, "2d" if find_detector(name).spec.kind == "clip" else None)
    refuse_complaints(in_half(model, find_detector(name).spec))
    refuse_complaints(in_int8(model, find_detector(name).spec))


@pytest.mark.parametrize("name", [name for name in DETECTORS if find_detector(name).spec.kind == "clip"])
def test_clip_detectors_in_their_3d_form_in_half_precision(name: str) -> None:
    refuse_complaints(in_half(graph(name, "3d"), find_detector(name).spec))
