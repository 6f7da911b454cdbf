from __future__ import annotations

import weakref

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ValueInfoProto

from deepscan.calibration.ranges import ItemReader, magnitude_counts, observe
from deepscan.errors import ModelError
from deepscan.export.tensor_values import SlicedGraph
from deepscan.runtime.artifacts.graph_index import GraphIndex
from deepscan.runtime.backends.sessions import Session
from tests.calibration.networks import Network, faces, residual_network

WATCHED = ["pixels", "stem.relu", "second", "sum.relu", "pool", "mean"]


def all_values(model: onnx.ModelProto, names: list[str], items: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Everything at once, as outputs of the whole graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(ValueInfoProto(name=name) for name in names)
    session = Session(copy.SerializeToString(), source="all", device="cpu", threads=1)
    return dict(zip(names, session.run(names, {"faces": items}), strict=True))


@pytest.mark.parametrize(("slice_bytes", "slices"), [(1, 6), (20_000, 3), (1 << 30, 1)])
def test_slices_give_what_the_whole_graph_gives(slice_bytes: int, slices: int) -> None:
    model, items = residual_network(), faces(2)
    graph = SlicedGraph(GraphIndex(model), WATCHED, batch=2, slice_bytes=slice_bytes)
    assert len(graph) == slices
    shown = list(graph.run(items))
    assert [name for name, _ in shown] == WATCHED
    for name, values in all_values(model, WATCHED, items).items():
        np.testing.assert_allclose(dict(shown)[name], values, rtol=1e-5, atol=1e-6)


def test_only_what_is_still_needed_is_kept() -> None:
    graph = SlicedGraph(GraphIndex(residual_network()), WATCHED, batch=1, slice_bytes=1)
    inputs = [part.inputs for part in graph._slices]
    # The shortcut is carried over the block; what is behind the last watched tensor is never computed.
    assert inputs == [("faces",), ("pixels",), ("stem.relu",), ("second", "stem.relu"), ("sum.relu",), ("pool",)]
    assert "fc" not in {name for part in graph._slices for name in part.outputs}


def test_what_has_been_looked_at_and_is_read_no_more_is_given_back() -> None:
    graph = SlicedGraph(GraphIndex(residual_network()), WATCHED, batch=1, slice_bytes=1)
    alive = []
    seen: dict[str, weakref.ref[NDArray[np.float32]]] = {}
    for name, values in graph.run(faces(1)):
        seen[name] = weakref.ref(values)
        del values
        alive.append({other for other, reference in seen.items() if reference() is not None})
    # The stem is read again behind the block; each of the others only by the next slice.
    assert alive[3] == {"second", "stem.relu", "sum.relu"}
    assert alive[5] == {"pool", "mean"}


def test_ranges_and_counts_are_those_of_all_items() -> None:
    model, items = residual_network(), faces(19)
    seen = observe(GraphIndex(model), WATCHED, ItemReader(items, seed=4))
    for name, values in all_values(model, WATCHED, items).items():
        assert seen[name].low == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert seen[name].high == pytest.approx(values.max(), rel=1e-5, abs=1e-6)
        expected = magnitude_counts(values, max(-seen[name].low, seen[name].high))
        # Other batches, other last digits: a value near an edge may fall into the next bin.
        np.testing.assert_allclose(np.cumsum(seen[name].magnitudes), np.cumsum(expected), atol=2 + values.size / 10_000)


@pytest.mark.parametrize("place", [0, 7, 8, 15, 16, 18])
def test_every_item_counts_wherever_it_lies(place: int) -> None:
    items = np.full((19, 12, 12, 3), 127, np.uint8)
    items[place] = 255
    seen = observe(GraphIndex(residual_network()), ["pixels"], ItemReader(items, seed=0))
    assert seen["pixels"].high == 1.0
    assert seen["pixels"].magnitudes[-1] == 12 * 12 * 3


def test_the_second_round_can_be_saved() -> None:
    reader = ItemReader(faces(3), seed=0)
    seen = observe(GraphIndex(residual_network()), ["sum"], reader, with_magnitudes=False)
    assert seen["sum"].high > 0 > seen["sum"].low
    assert not seen["sum"].magnitudes.any()


def test_values_that_are_no_numbers_are_refused() -> None:
    net = Network()
    pixels = net.pixels()
    net.add("Sub", [pixels, pixels], "nothing")
    net.add("Div", ["nothing", "nothing"], "broken")
    model = net.model(net.convolution("broken", "stem", (4, 3, 3, 3)), 4)
    with pytest.raises(ModelError, match=r"broken is not finite"):
        observe(GraphIndex(model), ["broken"], ItemReader(faces(2), seed=0))
