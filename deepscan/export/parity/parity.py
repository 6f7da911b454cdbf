"""How close the answers of a converted detector come to those of the original, and how close they must come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from deepscan.results import Label
from deepscan.runtime.pipeline.scoring import label_of
from deepscan.wording import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from deepscan.export.parity.samples import Samples
    from deepscan.options import Arithmetic
    from deepscan.spec import DetectorSpec

# Runs a graph over real crops and compares it with the float32 original.
ParityFunction: TypeAlias = "Callable[[onnx.ModelProto], Parity]"
WORST_SHOWN: Final = 10
# Fewer points always lie on a line, or nearly.
FEWEST_RANKED: Final = 3
# A label that so small a difference of the score changes was not reliable before. Detectors without an uncertain band,
# and with random weights, have many of those.
SLIGHT: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Case:
    """One crop or clip of a video (`source`): the original's and the converted detector's score, and their labels."""

    source: str
    reference: float
    score: float
    reference_label: Label
    label: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How the scores of a converted detector differ from the original's, over real crops or clips.

    In JSON, as `msgspec` writes it, a number that is none is null.

    Attributes:
        items: number of crops or clips that were compared.
        max_difference: the largest absolute difference of two scores; not a number where a score is none.
        mean_difference: the mean absolute difference.
        max_logit_difference: the largest absolute difference of two logits; not finite where a logit is not.
        rank_correlation: Spearman's, of the scores, with mean ranks for ties; None with fewer than three items, where
            one side gives all items the same score, and where a score is not a number.
        flips: the cases that are `real` by one score and `fake` by the other, largest difference first.
        auc_reference: area under the ROC curve of the original's scores, over the items known as real or fake; None
            unless there are some of both, and where a score is not a number.
        auc: of the converted detector's scores.
        worst: the largest differences, at most ten, largest first.
    """

    items: int
    max_difference: float
    mean_difference: float
    max_logit_difference: float
    rank_correlation: float | None
    flips: tuple[Case, ...]
    auc_reference: float | None
    auc: float | None
    worst: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a conversion may cost.

    Attributes:
        max_difference: no score may differ by more; None sets no limit.
        mean_difference: nor the scores on average.
        may_flip: whether a `real` may become a `fake`, or the other way round.
    """

    max_difference: float | None
    mean_difference: float | None
    may_flip: bool


BUDGETS: Final[dict[Arithmetic, Budget]] = {
    "fp32": Budget(max_difference=1e-4, mean_difference=None, may_flip=True),
    "bf16": Budget(max_difference=0.01, mean_difference=None, may_flip=False),
    "fp16": Budget(max_difference=0.01, mean_difference=None, may_flip=False),
    "int8": Budget(max_difference=None, mean_difference=0.02, may_flip=True),
}


def compared(
    reference: NDArray[np.float32], logits: NDArray[np.float32], spec: DetectorSpec, samples: Samples
) -> Parity:
    """Compare the logits [M] of a converted detector with the original's, for the M crops or clips that both saw.

    Raises:
        ValueError: the three are not of one length, or there is no item.
    """
    count = len(samples.items)
    if not count or reference.shape != (count,) or logits.shape != (count,):
        raise ValueError(f"{reference.shape} and {logits.shape} are not the logits of {count} items")
    before, after = _scores(reference, spec), _scores(logits, spec)
    differences = np.abs(after - before)
    # Largest first, and before them what is no number.
    order = np.argsort(-np.nan_to_num(differences, nan=np.inf), kind="stable")
    cases = [_case(samples.sources[place], float(before[place]), float(after[place]), spec) for place in order]
    with np.errstate(invalid="ignore"):
        logit_differences = np.abs(logits.astype(np.float64) - reference.astype(np.float64))
    return Parity(
        items=count,
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        max_logit_difference=float(logit_differences.max()),
        rank_correlation=rank_correlation(before, after),
        flips=tuple(case for case in cases if {case.reference_label, case.label} == {"real", "fake"}),
        auc_reference=auc(before, samples.fakes),
        auc=auc(after, samples.fakes),
        worst=tuple(cases[:WORST_SHOWN]),
    )


def misses(parity: Parity, budget: Budget) -> tuple[str, ...]:
    """Return sentences about what exceeds the budget; none within it.

    What is not a finite number always does; labels that a difference below 0.001 turns are not counted.
    """
    found = []
    if not all(map(math.isfinite, (parity.max_logit_difference, parity.max_difference, parity.mean_difference))):
        found.append("a logit or a score is not a finite number")
    for name, value, limit in (
        ("the largest difference of a score", parity.max_difference, budget.max_difference),
        ("the mean difference of the scores", parity.mean_difference, budget.mean_difference),
    ):
        if limit is not None and value > limit:
            found.append(f"{name} is {value:.3g}, and at most {limit:g} is allowed")
    flips = [case for case in parity.flips if not abs(case.score - case.reference) < SLIGHT]
    if flips and not budget.may_flip:
        change = f"{plural(parity.items, 'label')} {plural(len(flips), 'changes', 'change')}"
        found.append(f"{len(flips)} of {parity.items} {change} between real and fake")
    return tuple(found)


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation of two [M], in [-1, 1]; see `Parity` for when there is none."""
    if len(first) < FEWEST_RANKED or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    deviations = [mean_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    spreads = [float(np.sqrt((ranks * ranks).sum())) for ranks in deviations]
    if min(spreads) == 0.0:
        return None
    return float((deviations[0] * deviations[1]).sum() / (spreads[0] * spreads[1]))


def auc(scores: NDArray[np.float64], fakes: Sequence[bool | None]) -> float | None:
    """Return how often a fake's score [M] is higher than a real one's, ties counted half; see `Parity` for None.

    Items of which it is not known whether they are fakes are left out.
    """
    known = np.array([fake is not None for fake in fakes], dtype=bool)
    is_fake = np.array([bool(fake) for fake in fakes], dtype=bool)[known]
    reals = len(is_fake) - int(is_fake.sum())
    if not is_fake.any() or not reals or not np.isfinite(scores[known]).all():
        return None
    number = len(is_fake) - reals
    # The sum of the fakes' ranks (from 0), less what it is when all reals score higher, counts the pairs that are won.
    won = mean_ranks(scores[known])[is_fake].sum() - number * (number - 1) / 2
    return float(won / (number * reals))


def mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each of [M] finite values, from 0 for the smallest; equal ones share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return ranks


def _scores(logits: NDArray[np.float32], spec: DetectorSpec) -> NDArray[np.float64]:
    return np.array([spec.calibration.score(float(logit)) for logit in logits], dtype=np.float64)


def _case(source: str, reference: float, score: float, spec: DetectorSpec) -> Case:
    return Case(source, reference, score, label_of(reference, spec.band), label_of(score, spec.band))


@dataclass(frozen=True, eq=False)
class ConversionResult:
    """A graph of lower precision.

    Attributes:
        model: takes and gives what the artifact contract says.
        notes: for each node that was left in higher precision, by its name, why.
        summary: one line to show.
        stand_in: what ONNX Runtime must run on a CPU to compute what `model` computes on a GPU; None: `model` itself.
    """

    model: onnx.ModelProto
    notes: Mapping[str, str]
    summary: str
    stand_in: onnx.ModelProto | None = None
