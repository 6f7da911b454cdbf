from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.runtime.backends.batching import CROPS_AT_ONCE, MOST_STREAMS, Streams, streams_for
from deepscan.runtime.backends.selection import Candidate, open_backend
from tests.runtime.tiny_detectors import TINY_CLIP, TINY_FRAME, tiny_artifact


@given(threads=st.integers(1, 300))
def test_threads_are_shared_out_evenly_and_few_stay_idle(threads: int) -> None:
    streams = streams_for("frame", threads)
    assert 1 <= streams.count <= min(MOST_STREAMS, threads)
    used = streams.count * streams.threads
    assert threads - used < streams.threads
    assert streams.max_batch == CROPS_AT_ONCE


@pytest.mark.parametrize(("threads", "count"), [(1, 1), (2, 2), (8, 8), (12, 6), (16, 8), (64, 8)])
def test_crops_are_computed_side_by_side(threads: int, count: int) -> None:
    assert streams_for("frame", threads).count == count


def test_a_clip_gets_all_threads() -> None:
    assert streams_for("clip", 12) == Streams(count=1, threads=12, max_batch=1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_backends_take_as_many_as_that(name: str) -> None:
    sizes = []
    for spec in (TINY_CLIP, TINY_FRAME):
        candidate, artifact = Candidate(name, "fp32"), tiny_artifact(spec)
        with closing(open_backend(candidate, artifact, device="cpu", threads=2)) as backend:
            sizes.append(backend.max_batch)
    assert sizes == [1, CROPS_AT_ONCE]
