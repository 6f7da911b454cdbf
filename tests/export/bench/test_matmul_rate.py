from __future__ import annotations

import numpy as np
import pytest

from deepscan.export.bench.graph_costs import flop_of
from deepscan.export.bench.matmul_rate import PRODUCTS, _chain, matmul_rate
from deepscan.runtime.backends.sessions import Session

SIDE = 64


def test_the_graph_has_the_arithmetic_that_the_rate_is_reckoned_with() -> None:
    graph = _chain("fp32", SIDE, 3)
    assert flop_of(graph) == 3 * 2 * SIDE**3


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
def test_the_products_are_computed_in_every_run_and_in_that_precision(precision: str, dtype: type) -> None:
    graph = _chain("fp16" if precision == "fp16" else "fp32", SIDE, 2)
    session = Session(graph, source="chain", device="cpu", threads=1)
    first, second = (session.run(None, {"x": np.full((1, 1), value, np.float32)})[0] for value in (0.0, 1.0))
    assert first.dtype == dtype
    assert np.isfinite([first, second]).all()
    assert first != second


def test_a_rate_is_that_of_a_computer() -> None:
    rate = matmul_rate(device="cpu", precision="fp32", threads=1, seconds=0.01, side=256)
    assert 1e8 < rate < 1e15
    assert PRODUCTS.keys() == {"cpu", "cuda"}
