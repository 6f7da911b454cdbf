from __future__ import annotations

import numpy as np
import pytest

from deepscan.calibration.ranges import ItemReader
from deepscan.errors import UsageError
from tests.calibration.networks import faces


def numbered(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)


def test_every_item_comes_once_in_batches_that_all_differ() -> None:
    batches = list(ItemReader(numbered(27), seed=3))
    assert [len(batch) for batch in batches] == [8, 8, 8, 3]
    assert len({batch.tobytes() for batch in batches}) == 4
    assert sorted(np.concatenate(batches).ravel().tolist()) == list(range(27))


def test_each_round_is_the_same() -> None:
    reader = ItemReader(numbered(20), seed=0)
    assert [batch.tobytes() for batch in reader] == [batch.tobytes() for batch in reader]


def test_a_round_that_was_broken_off_does_not_change_the_next() -> None:
    reader = ItemReader(numbered(20), seed=0)
    first = next(iter(reader)).tobytes()
    assert next(iter(reader)).tobytes() == first


def test_the_seed_decides_the_order() -> None:
    orders = {b"".join(batch.tobytes() for batch in ItemReader(numbered(20), seed=seed)) for seed in (0, 0, 1)}
    assert len(orders) == 2


def test_clips_come_one_by_one() -> None:
    clips = faces(3, item=(4, 2, 2, 3))
    assert [batch.shape for batch in ItemReader(clips, seed=0)] == [(1, 4, 2, 2, 3)] * 3


def test_without_items_it_says_what_to_give() -> None:
    with pytest.raises(UsageError, match=r"--calibration-data FOLDER"):
        ItemReader(numbered(0), seed=0)
