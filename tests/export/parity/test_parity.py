from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepscan.export.parity.parity import (
    BUDGETS,
    WORST_SHOWN,
    Budget,
    Case,
    Parity,
    auc,
    compared,
    mean_ranks,
    misses,
    rank_correlation,
)
from deepscan.export.parity.samples import Samples
from deepscan.models.lite import LITE
from deepscan.spec import Calibration, LabelBand

SPEC = msgspec.structs.replace(
    LITE, calibration=Calibration(scale=2.0, offset=-1.0), band=LabelBand(real_below=0.4, fake_from=0.6)
)
# Few different values, so that ties are common.
LOGITS = st.sampled_from([-9.0, -1.5, -0.1, 0.0, 0.25, 0.5, 0.75, 1.0, 3.0, 40.0])
PAIRS = st.lists(st.tuples(LOGITS, LOGITS, st.sampled_from([True, False, None])), min_size=1, max_size=30)
VALUES = st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.50000001, 1.0]), min_size=1, max_size=12)


def samples_of(fakes: Sequence[bool | None]) -> Samples:
    count = len(fakes)
    items = np.zeros((count, 1, 1, 3), dtype=np.uint8)
    return Samples(items, tuple(f"video at {n} s" for n in range(count)), ("video",) * count, tuple(fakes))


def logits_of(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def parity_of(reference: Sequence[float], logits: Sequence[float], fakes: Sequence[bool | None] = ()) -> Parity:
    known = fakes or [None] * len(reference)
    return compared(logits_of(reference), logits_of(logits), SPEC, samples_of(known))


def logit_for(score: float) -> float:
    """Invert the calibration of `SPEC`."""
    return (math.log(score / (1 - score)) + 1.0) / 2.0


def test_differences_are_of_calibrated_scores() -> None:
    parity = parity_of([logit_for(0.2), logit_for(0.9)], [logit_for(0.3), logit_for(0.87)])
    assert parity.items == 2
    assert parity.max_difference == pytest.approx(0.1, abs=1e-6)
    assert parity.mean_difference == pytest.approx(0.065, abs=1e-6)
    assert parity.max_logit_difference == pytest.approx(logit_for(0.3) - logit_for(0.2), abs=1e-6)


def test_only_a_change_between_real_and_fake_is_a_flip() -> None:
    before = [0.39, 0.39, 0.5, 0.61, 0.61, 0.39]
    after = [0.61, 0.41, 0.61, 0.59, 0.39, 0.38]
    parity = parity_of([logit_for(score) for score in before], [logit_for(score) for score in after])
    assert [(case.source, case.reference_label, case.label) for case in parity.flips] == [
        ("video at 0 s", "real", "fake"),
        ("video at 4 s", "fake", "real"),
    ]


def test_the_worst_cases_come_first_and_are_few() -> None:
    count = WORST_SHOWN + 5
    parity = parity_of([0.0] * count, [0.01 * number for number in range(count)])
    assert [case.source for case in parity.worst] == [f"video at {count - 1 - n} s" for n in range(WORST_SHOWN)]
    assert parity.worst[0].reference == pytest.approx(SPEC.calibration.score(0.0))
    assert parity.worst[0].score == pytest.approx(SPEC.calibration.score(0.01 * (count - 1)), abs=1e-7)


def test_cases_that_differ_alike_stay_in_order() -> None:
    assert [case.source for case in parity_of([0.0] * 3, [0.5] * 3).worst] == [f"video at {n} s" for n in range(3)]


@given(PAIRS)
def test_the_two_sides_can_be_exchanged(pairs: list[tuple[float, float, bool | None]]) -> None:
    first, second, fakes = zip(*pairs, strict=True)
    one, other = parity_of(first, second, fakes), parity_of(second, first, fakes)
    assert [case.source for case in one.worst] == [case.source for case in other.worst]
    exchanged = replace(
        other,
        auc=other.auc_reference,
        auc_reference=other.auc,
        flips=tuple(_exchanged(other.flips)),
        worst=tuple(_exchanged(other.worst)),
    )
    assert one == exchanged


def _exchanged(cases: Sequence[Case]) -> list[Case]:
    return [Case(case.source, case.score, case.reference, case.label, case.reference_label) for case in cases]


@given(PAIRS, st.randoms())
def test_the_order_of_the_items_does_not_matter(pairs: list[tuple[float, float, bool | None]], chance: Random) -> None:
    mixed = chance.sample(pairs, len(pairs))
    one, other = (parity_of(*zip(*some, strict=True)) for some in (pairs, mixed))
    for name in ("max_difference", "max_logit_difference", "auc", "auc_reference"):
        assert getattr(one, name) == getattr(other, name)
    assert one.mean_difference == pytest.approx(other.mean_difference, abs=1e-12)
    assert one.rank_correlation == pytest.approx(other.rank_correlation, abs=1e-12)
    assert len(one.flips) == len(other.flips)
    differences = [[abs(case.score - case.reference) for case in parity.worst] for parity in (one, other)]
    assert differences[0] == differences[1] == sorted(differences[0], reverse=True)


@given(VALUES)
def test_ranks_count_what_is_smaller_and_half_of_what_is_equal(values: list[float]) -> None:
    slow = [sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]
    assert mean_ranks(np.array(values)).tolist() == slow


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.2000001, 0.7, 1.0])] * 2), min_size=1, max_size=12))
def test_rank_correlation_is_pearsons_of_the_ranks(pairs: list[tuple[float, float]]) -> None:
    sides = [list(side) for side in zip(*pairs, strict=True)]
    found = rank_correlation(*(np.array(side) for side in sides))
    if len(pairs) < 3 or any(len(set(side)) == 1 for side in sides):
        assert found is None
        return
    x, y = ([sum(b < a for b in side) + sum(b == a for b in side) / 2 for a in side] for side in sides)
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread = math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    assert found == pytest.approx(covariance / spread, abs=1e-12)


def test_rank_correlation_of_known_orders() -> None:
    rising = np.array([0.1, 0.2, 0.7, 0.9])
    assert rank_correlation(rising, rising**3) == pytest.approx(1.0)
    assert rank_correlation(rising, -rising) == pytest.approx(-1.0)
    assert rank_correlation(rising, np.array([1.0, 2.0, 4.0, 3.0])) == pytest.approx(0.8)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.sampled_from([True, False, None])), max_size=14))
def test_auc_counts_the_pairs_that_are_won(scored: list[tuple[float, bool | None]]) -> None:
    scores, fakes = [score for score, _ in scored], [fake for _, fake in scored]
    pairs = [(a, b) for a, is_fake in scored if is_fake for b, is_other in scored if is_other is False]
    won = sum(1.0 if fake > real else 0.5 if fake == real else 0.0 for fake, real in pairs)
    found = auc(np.array(scores), fakes)
    assert found is None if not pairs else found == pytest.approx(won / len(pairs), abs=1e-12)


def test_auc_is_of_each_side() -> None:
    parity = parity_of([-1.0, 0.0, 1.0, 2.0], [2.0, 0.0, 1.0, -1.0], [False, False, True, None])
    assert (parity.auc_reference, parity.auc) == (1.0, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sides", ["reference", "logits", "both"])
@pytest.mark.parametrize("budget", [*BUDGETS.values(), Budget(None, None, may_flip=True)])
def test_what_is_no_number_is_always_a_miss(bad: float, sides: str, budget: Budget) -> None:
    good = [0.0, 1.0, 2.0, 3.0]
    spoilt = [0.0, bad, 2.0, 3.0]
    parity = parity_of(good if sides == "logits" else spoilt, good if sides == "reference" else spoilt)
    assert "a logit or a score is not a finite number" in misses(parity, budget)


def test_what_is_no_number_is_the_worst_case() -> None:
    parity = parity_of([0.0] * 12, [9.0] * 6 + [math.nan] + [0.0] * 5, [True, False] * 6)
    assert parity.worst[0].source == "video at 6 s"
    assert math.isnan(parity.max_difference)
    assert math.isnan(parity.mean_difference)
    assert (parity.rank_correlation, parity.auc) == (None, None)
    assert parity.auc_reference == 0.5
    assert misses(parity, BUDGETS["int8"]) == ("a logit or a score is not a finite number",)


def test_budgets_are_what_is_promised() -> None:
    assert set(BUDGETS) == {"fp32", "bf16", "fp16", "int8"}
    assert BUDGETS["fp32"].max_difference == 1e-4
    for precision in ("bf16", "fp16"):
        assert BUDGETS[precision] == Budget(0.01, None, may_flip=False)
    assert BUDGETS["int8"] == Budget(None, 0.02, may_flip=True)


def test_a_budget_is_exceeded_by_more_than_it_and_not_by_itself() -> None:
    parity = parity_of([0.0, 0.0], [0.0, 0.5])
    exact = Budget(parity.max_difference, parity.mean_difference, may_flip=False)
    assert misses(parity, exact) == ()
    less = Budget(math.nextafter(parity.max_difference, 0.0), parity.mean_difference, may_flip=False)
    (miss,) = misses(parity, less)
    assert miss.startswith("the largest difference of a score is 0.231, ")
    (miss,) = misses(parity, replace(exact, mean_difference=0.1))
    assert miss == "the mean difference of the scores is 0.116, and at most 0.1 is allowed"


def test_flips_are_missed_only_where_they_are_forbidden() -> None:
    parity = parity_of([logit_for(0.39), 0.0], [logit_for(0.61), 0.0])
    strict = Budget(None, None, may_flip=False)
    assert misses(parity, strict) == ("1 of 2 labels changes between real and fake",)
    assert misses(parity, replace(strict, may_flip=True)) == ()


def test_identical_answers_are_within_every_budget() -> None:
    parity = parity_of([0.1, 0.2, 5.0], [0.1, 0.2, 5.0])
    assert parity.rank_correlation == pytest.approx(1.0)
    assert all(misses(parity, budget) == () for budget in BUDGETS.values())


def test_json_there_and_back() -> None:
    parity = parity_of([0.0, 1.0, 2.0], [1.0, 0.5, 2.0], [True, False, None])
    assert parity.flips
    assert msgspec.json.decode(msgspec.json.encode(parity), type=Parity) == parity


@pytest.mark.parametrize(("reference", "logits", "items"), [(2, 3, 3), (3, 2, 3), (3, 3, 2), (0, 0, 0)])
def test_what_does_not_belong_together_is_refused(reference: int, logits: int, items: int) -> None:
    with pytest.raises(ValueError, match="are not the logits of"):
        compared(np.zeros(reference, np.float32), np.zeros(logits, np.float32), SPEC, samples_of([None] * items))


def test_logits_with_a_second_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="are not the logits of"):
        compared(np.zeros((3, 1), np.float32), np.zeros(3, np.float32), SPEC, samples_of([None] * 3))


@pytest.mark.parametrize(("difference", "counts"), [(0.0009, False), (0.0011, True)])
def test_a_label_that_a_slight_difference_turns_is_no_miss(difference: float, counts: bool) -> None:
    case = Case("a", 0.4999, 0.4999 + difference, "real", "fake")
    parity = Parity(
        items=1,
        max_difference=difference,
        mean_difference=difference,
        max_logit_difference=0.1,
        rank_correlation=None,
        flips=(case,),
        auc_reference=None,
        auc=None,
        worst=(case,),
    )
    assert bool(misses(parity, BUDGETS["fp16"])) == counts
    assert misses(parity, BUDGETS["int8"]) == ()
