from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.calibration.ranges import (
    BINS,
    ENTROPY_BINS,
    ENTROPY_STRIDE,
    LEAST_PROBABILITY,
    ItemReader,
    TensorValues,
    divergence,
    entropy_threshold,
    magnitude_counts,
    percentile_threshold,
    resolve_range,
    sampled,
)
from deepscan.errors import UsageError
from deepscan.export.tensor_values import Range
from tests.calibration.networks import faces


def seen(values: NDArray[np.float32]) -> TensorValues:
    low, high = float(values.min()), float(values.max())
    return TensorValues(low, high, magnitude_counts(values, max(-low, high)))


def slow_divergence(bins: list[int], kept: int, levels: int) -> float:
    """The definition, bin by bin."""
    reference = [float(count) for count in bins[:kept]]
    reference[-1] += sum(bins[kept:])
    candidate = [0.0] * kept
    for level in range(levels):
        run = range(level * kept // levels, (level + 1) * kept // levels)
        filled = [place for place in run if reference[place] > 0]
        for place in filled:
            candidate[place] = sum(bins[other] for other in run) / len(filled)
    if sum(candidate) == 0:
        return math.inf
    total = 0.0
    for wanted, got in zip(reference, candidate, strict=True):
        p, q = wanted / sum(reference), max(got / sum(candidate), LEAST_PROBABILITY)
        total += p * math.log(p / q) if p > 0 else 0.0
    return total


@given(
    bins=st.lists(st.integers(0, 50), min_size=8, max_size=40).filter(any),
    levels=st.integers(2, 8),
    data=st.data(),
)
def test_the_divergence_is_the_definition(bins: list[int], levels: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(levels, len(bins)))
    fast = divergence(np.array(bins, np.float64), kept, levels)
    assert fast == pytest.approx(slow_divergence(bins, kept, levels), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("levels", [128, 256])
def test_entropy_takes_the_threshold_of_the_least_divergence(levels: int) -> None:
    values = np.random.default_rng(levels).laplace(size=20_000).astype(np.float32)
    counts = seen(values).magnitudes
    bins = counts.reshape(ENTROPY_BINS, -1).sum(axis=1).astype(np.float64)
    losses = {kept: divergence(bins, kept, levels) for kept in range(ENTROPY_BINS, levels - 1, -ENTROPY_STRIDE)}
    best = min(losses, key=lambda kept: losses[kept])
    assert levels < best < ENTROPY_BINS
    assert entropy_threshold(counts, levels) == best / ENTROPY_BINS


def test_entropy_cuts_off_lonely_outliers_and_keeps_what_is_evenly_spread() -> None:
    even = np.linspace(-1, 1, 50_001, dtype=np.float32)
    assert entropy_threshold(seen(even).magnitudes, 128) == 1.0
    with_outlier = np.append(even, np.float32(9.0))
    assert 1.0 <= entropy_threshold(seen(with_outlier).magnitudes, 128) * 9 < 1.25


@given(counts=st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any), percentile=st.floats(1, 100))
def test_a_percentile_is_the_lowest_edge_that_leaves_few_above(counts: list[int], percentile: float) -> None:
    place = round(percentile_threshold(np.array(counts), percentile) * len(counts))
    allowed = sum(counts) * (1 - percentile / 100) + 1e-6
    assert sum(counts[place:]) <= allowed
    if place > 1:
        assert sum(counts[place - 1 :]) > allowed - 2e-6


def test_of_ten_thousand_values_a_percentile_cuts_off_one() -> None:
    values = np.arange(1, 10_001, dtype=np.float32)
    values[-1] = 60_000
    assert resolve_range(seen(values), "percentile", "affine").high == pytest.approx(9_999, abs=60_000 / BINS)


def test_only_the_side_that_is_too_long_is_cut() -> None:
    values = np.append(np.linspace(-0.5, 1, 30_000, dtype=np.float32), np.float32(40))
    got, mirrored = (resolve_range(seen(turned), "percentile", "affine") for turned in (values, -values))
    assert got.low == -0.5
    assert got.high == pytest.approx(1.0, abs=40 / BINS)
    assert (mirrored.low, mirrored.high) == (-got.high, 0.5)
    assert resolve_range(seen(values), "minmax", "affine") == Range(-0.5, 40.0)


def test_values_of_one_sign_have_twice_as_many_levels_where_there_is_a_zero_point() -> None:
    values = np.abs(np.random.default_rng(0).laplace(size=20_000)).astype(np.float32)
    counts, largest = seen(values).magnitudes, float(values.max())
    assert resolve_range(seen(values), "entropy", "affine").high == entropy_threshold(counts, 256) * largest
    assert resolve_range(seen(values), "entropy", "symmetric").high == entropy_threshold(counts, 128) * largest


def test_what_is_always_zero_keeps_an_empty_range() -> None:
    zeros = seen(np.zeros(5, np.float32))
    assert resolve_range(zeros, "entropy", "affine") == resolve_range(zeros, "percentile", "affine") == Range(0.0, 0.0)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=50))
def test_magnitudes_are_counted_in_the_bins_whose_upper_edge_holds_them(values: list[float]) -> None:
    array = np.array(values, np.float32)
    largest = float(np.abs(array).max())
    counts = magnitude_counts(array, largest)
    assert counts.sum() == np.count_nonzero(array)
    if largest > 1e-30:
        edges = [math.ceil(abs(float(value)) * (BINS / largest)) for value in array if value]
        assert counts.tolist() == np.bincount(np.clip(edges, 1, BINS), minlength=BINS + 1)[1:].tolist()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300))
def test_a_sample_is_small_and_visits_all_columns_alike(rows: int, columns: int, most: int) -> None:
    values = np.tile(np.arange(columns, dtype=np.float32), (rows, 1))
    taken = sampled(values, most=most)
    assert len(taken) <= most
    assert values.size <= most or len(taken) >= 1
    if len(taken) >= 4 * columns:
        share = np.bincount(taken.astype(int), minlength=columns) / len(taken)
        assert np.abs(share - 1 / columns).max() < 1 / columns


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
