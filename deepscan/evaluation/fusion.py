"""Fusion: the scores of several detectors become one, if that is better than the best of them.

The model is logistic on the calibrated log-odds of the detectors. A video that one of them has not scored is judged by
a model that was fitted without it; there is one for each set of detectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from typing import Final

import msgspec
import numpy as np

from deepscan.errors import UsageError
from deepscan.evaluation.bootstrap import clusters_of, interval, resamples
from deepscan.evaluation.figures import Figure
from deepscan.evaluation.metrics import PLACE, Booleans, Floats, Integers, Sample
from deepscan.evaluation.profiles import FEWEST, fit, folds_by_group
from deepscan.installing import needing_packages
from deepscan.profiles import FusedSubset, Fusion, Isotonic, Platt, Profile, logit, sigmoid

MOST: Final = 6  # detectors; there are 2^n models
PENALTY: Final = 1.0  # C of the logistic regression: detectors that agree share their weight


class FusionEvidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the fusion is better than the best single detector, cross-fitted, on videos that all have scored.

    Attributes:
        best: name of the detector with the highest AUC.
        fakes, genuine: number of videos.
        auc: AUC of the fusion.
        gain: AUC of the fusion minus that of the best detector, with a paired interval.
    """

    best: str
    fakes: int
    genuine: int
    auc: Figure
    gain: Figure

    @property
    def better(self) -> bool:
        """Whether the whole interval of the gain is above zero."""
        return self.gain.low is not None and self.gain.low > 0

    @property
    def sentence(self) -> str:
        """Whether the fusion is better, in words."""
        what = "The fusion is better than" if self.better else "The fusion is not shown to be better than"
        return f"{what} {self.best} alone: its AUC is {self.auc}, a gain of {self.gain}."


class FittedFusion(Fusion, frozen=True, kw_only=True):
    """A fusion with the evidence for it.

    Attributes:
        evidence: whether it is better than the best of its detectors.
    """

    evidence: FusionEvidence


def fit_fusion(
    profiles: Sequence[Profile],
    *,
    fake: Booleans,
    scores: Mapping[str, Floats],
    groups: Sequence[str],
    seed: int = 0,
) -> FittedFusion:
    """Fit a fusion, and find out whether it is better than the best single detector.

    Args:
        profiles: calibration of each detector.
        fake: whether each video is fake, [N].
        scores: score of each video by the name of the detector, [N]; NaN where there is none.
        groups: name of the group of each video, [N].
        seed: of the folds and the bootstrap.

    Raises:
        UsageError: there are too few or too many detectors, or too few videos that all of them have scored.
        MachineError: scikit-learn is not installed.
    """
    names = [profile.detector for profile in profiles]
    if not 2 <= len(set(names)) == len(names) <= MOST:
        raise UsageError(f"A fusion takes from 2 to {MOST} detectors, each once, not {', '.join(names) or 'none'}.")
    raw = np.stack([scores[name] for name in names], axis=1)
    complete = np.asarray(~np.isnan(raw).any(axis=1))
    fakes, genuine = int(fake[complete].sum()), int((~fake[complete]).sum())
    if min(fakes, genuine) < FEWEST:
        raise UsageError(
            f"A fusion needs at least {FEWEST} fakes and {FEWEST} genuine videos that {', '.join(names)} have all "
            f"scored, and there are {fakes} and {genuine}: scan more videos with them."
        )
    raw, fake = raw[complete], fake[complete]
    groups = [groups[number] for number in np.flatnonzero(complete).tolist()]
    calibrations = [profile.calibration for profile in profiles]
    odds = _odds(calibrations, raw)
    sets = chain.from_iterable(combinations(range(len(names)), size) for size in range(1, len(names) + 1))
    subsets = tuple(_subset(names, chosen, *_fit(odds[:, chosen], fake)) for chosen in map(list, sets))
    return FittedFusion(
        profiles=tuple(profiles),
        subsets=subsets,
        trained_prevalence=float(fake.mean()),
        evidence=_evidence(names, calibrations, raw, fake, groups, seed),
    )


def _subset(names: Sequence[str], chosen: Sequence[int], weights: Floats, offset: float) -> FusedSubset:
    return FusedSubset(
        detectors=tuple(names[place] for place in chosen), weights=tuple(weights.tolist()), offset=offset
    )


def _odds(calibrations: Sequence[Platt | Isotonic], raw: Floats) -> Floats:
    """Return the calibrated log-odds, [N, D]."""
    return np.stack([logit(each.probability(raw[:, place])) for place, each in enumerate(calibrations)], axis=1)


def _fit(odds: Floats, fake: Booleans) -> tuple[Floats, float]:
    with needing_packages("Calibrating", "evaluate"):
        from sklearn.linear_model import LogisticRegression
    fitted = LogisticRegression(C=PENALTY).fit(odds, fake)
    return fitted.coef_[0], float(fitted.intercept_[0])


def _cross_fitted(calibrations: Sequence[Platt | Isotonic], raw: Floats, fake: Booleans, folds: Integers) -> Floats:
    """Return the fused probability of each video, by calibrations and a model that were fitted without its fold."""
    found = np.empty(len(fake))
    for fold in np.unique(folds):
        held = folds == fold
        refitted = [
            fit(fake[~held], raw[~held, place], "platt" if isinstance(each, Platt) else "isotonic")
            for place, each in enumerate(calibrations)
        ]
        odds = _odds(refitted, raw)
        weights, offset = _fit(odds[~held], fake[~held])
        found[held] = sigmoid(odds[held] @ weights + offset)
    return found


def _evidence(
    names: Sequence[str],
    calibrations: Sequence[Platt | Isotonic],
    raw: Floats,
    fake: Booleans,
    groups: Sequence[str],
    seed: int,
) -> FusionEvidence:
    clusters = clusters_of(groups, fake)
    fused = _cross_fitted(calibrations, raw, fake, folds_by_group(fake, groups, seed))
    called = np.ones(len(fake), dtype=np.int64)
    samples = [Sample(fake, column, called, clusters.of_video) for column in (*raw.T, fused)]
    once = np.ones((1, clusters.count))
    auc = [float(sample.figures(once)[0, PLACE["auc"]]) for sample in samples]
    best = int(np.argmax(auc[:-1]))
    drawn = np.concatenate(
        [
            np.stack([sample.figures(weights)[:, PLACE["auc"]] for sample in (samples[best], samples[-1])], axis=1)
            for weights in resamples(clusters, seed=seed)
        ]
    )
    smaller = clusters.smaller_class(np.arange(len(fake)), fake)
    return FusionEvidence(
        best=names[best],
        fakes=samples[0].fakes,
        genuine=samples[0].genuine,
        auc=_with_interval(auc[-1], interval(drawn[:, 1], smaller)),
        gain=_with_interval(auc[-1] - auc[best], interval(drawn[:, 1] - drawn[:, 0], smaller, share=False)),
    )


def _with_interval(value: float, ends: tuple[float, float] | None) -> Figure:
    if ends is None:
        return Figure(value=value, reason="there are too few groups for an interval")
    return Figure(value=value, low=ends[0], high=ends[1])
