"""Calibration: what a score means on footage like one's own, and a threshold with a promised error rate.

A profile, see `deepscan.profiles`, is fitted to scores of a detector on labeled videos. Every probability with which it
is judged comes from a fit that has not seen the video's group (cross-fitting).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from deepscan.errors import UsageError
from deepscan.evaluation.bootstrap import clusters_of, interval, resamples
from deepscan.evaluation.figures import Figure
from deepscan.evaluation.metrics import PLACE, Booleans, Floats, Integers, Sample
from deepscan.evaluation.thresholds import threshold_at
from deepscan.installing import needing_packages
from deepscan.profiles import CLIP, Fusion, Isotonic, Platt, Profile, at_prevalence, logit
from deepscan.runtime.system.files import atomic_write

FOLDS: Final = 5
FEWEST: Final = 10  # videos of either class, below which nothing is fitted
ISOTONIC_FROM: Final = 1000  # videos: with fewer, isotonic regression follows chance
Method = Literal["platt", "isotonic"]


class Reliability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How well probabilities agree with what is true.

    Attributes:
        brier, log_loss, ece: figures with intervals over groups.
        bins: of each tenth of the probabilities that holds videos: mean probability, share of fakes, number of videos.
    """

    brier: Figure
    log_loss: Figure
    ece: Figure
    bins: tuple[tuple[float, float, int], ...]


class FittedProfile(Profile, frozen=True, kw_only=True):
    """A profile with the evidence for it.

    Attributes:
        before, after: reliability without and with it, cross-fitted by group, at the prevalence of the videos.
    """

    before: Reliability
    after: Reliability


def fit_profile(
    *,
    detector: str,
    weights_sha256: str,
    settings_sha256: str,
    fake: Booleans,
    score: Floats,
    groups: Sequence[str],
    labels: str = "",
    method: Method | Literal["auto"] = "auto",
    prevalence: float | None = None,
    max_fpr: float | None = None,
    seed: int = 0,
) -> FittedProfile:
    """Fit a profile to the scores of one detector.

    Args:
        detector: name of the detector.
        weights_sha256: hash of its weights.
        settings_sha256: hash of the settings of the results.
        fake: whether each video is fake, [N].
        score: its score in [0, 1], [N]; without those that have none.
        groups: name of the group of each video, [N].
        labels: where the labels come from.
        method: `platt`; `isotonic`, with at least 1,000 videos; `auto`: the better of the two by cross-fitted log loss.
        prevalence: share of fakes, in (0, 1), among the videos that the profile is meant for.
        max_fpr: promised rate of genuine videos called fake; it sets the threshold.
        seed: of the folds and the bootstrap.

    Raises:
        UsageError: there are too few videos or groups for what was asked for, or a number is out of range.
        MachineError: scikit-learn is not installed.
    """
    fakes, genuine = int(fake.sum()), int((~fake).sum())
    if min(fakes, genuine) < FEWEST:
        raise UsageError(
            f"A calibration needs at least {FEWEST} fakes and {FEWEST} genuine videos with a score, and there are "
            f"{fakes} and {genuine}: label more videos."
        )
    if method == "isotonic" and len(fake) < ISOTONIC_FROM:
        raise UsageError(
            f"Isotonic calibration needs {ISOTONIC_FROM} videos, and there are {len(fake)}: use the method platt."
        )
    if prevalence is not None and not 0 < prevalence < 1:
        raise UsageError(f"prevalence must be a number between 0 and 1, not {prevalence:g}.")
    methods: list[Method] = ["platt"] if method == "auto" and len(fake) < ISOTONIC_FROM else ["platt", "isotonic"]
    methods = methods if method == "auto" else [method]
    folds = folds_by_group(fake, groups, seed)
    crossed = {each: cross_fitted(fake, score, folds, each) for each in methods}
    chosen = min(methods, key=lambda each: _log_loss(fake, crossed[each]))
    calibration = fit(fake, score, chosen)
    if not calibration.rises:
        raise UsageError(
            f"The scores of {detector} are no higher for fakes than for genuine videos here, so they cannot be "
            "calibrated: look for swapped labels, or use another detector."
        )
    share = fakes / len(fake)
    threshold = None
    if max_fpr is not None:
        probability = at_prevalence(calibration.probability(score), share, prevalence)
        threshold = threshold_at(probability[~fake], _chosen(groups, ~fake), max_fpr)
    return FittedProfile(
        detector=detector,
        weights_sha256=weights_sha256,
        settings_sha256=settings_sha256,
        labels=labels,
        fakes=fakes,
        genuine=genuine,
        groups=len(set(groups)),
        calibration=calibration,
        trained_prevalence=share,
        prevalence=prevalence,
        threshold=threshold,
        before=reliability(fake, score, groups, seed),
        after=reliability(fake, crossed[chosen], groups, seed),
    )


def write_profile(profile: Profile | Fusion, path: str | os.PathLike[str]) -> None:
    """Write a profile as JSON, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    atomic_write({Path(path): [msgspec.json.format(msgspec.json.encode(profile), indent=2), b"\n"]})


def fit(fake: Booleans, score: Floats, method: Method) -> Platt | Isotonic:
    """Fit a calibration to scores; Platt's without regularization, to the targets of the data."""
    with needing_packages("Calibrating", "evaluate"):
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression
    if method == "platt":
        fitted = LogisticRegression(C=1e6).fit(logit(score)[:, None], fake)
        return Platt(scale=float(fitted.coef_[0, 0]), offset=float(fitted.intercept_[0]))
    knots = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, fake)
    return Isotonic(scores=tuple(knots.X_thresholds_.tolist()), probabilities=tuple(knots.y_thresholds_.tolist()))


def cross_fitted(fake: Booleans, score: Floats, folds: Integers, method: Method) -> Floats:
    """Return the probability of each video by the calibration fitted without its fold, [N]."""
    found = np.empty(len(fake))
    for fold in np.unique(folds):
        held = folds == fold
        found[held] = fit(fake[~held], score[~held], method).probability(score[held])
    return found


def folds_by_group(fake: Booleans, groups: Sequence[str], seed: int = 0) -> Integers:
    """Return the number of the fold of each video, [N]; a group lies in one, and all others have both classes.

    Raises:
        UsageError: there are fewer than two groups with either class.
    """
    names, numbers = np.unique(np.array(groups, dtype=object), return_inverse=True)
    fewest = min(len(set(numbers[fake])), len(set(numbers[~fake])))
    if fewest < 2:
        raise UsageError("Cross-fitting needs fakes and genuine videos in at least two groups each: label more videos.")
    order = np.random.default_rng(seed).permutation(len(names))
    shares = np.bincount(numbers, fake, len(names)) / np.bincount(numbers, minlength=len(names))
    of_group = np.empty(len(names), dtype=np.int64)
    ranked = order[np.argsort(shares[order], kind="stable")]  # so that each fold has fakes and genuine videos alike
    of_group[ranked] = np.arange(len(names)) % min(FOLDS, fewest)
    return of_group[numbers]


def reliability(fake: Booleans, probability: Floats, groups: Sequence[str], seed: int = 0) -> Reliability:
    """Return how well probabilities agree with what is true, with intervals over groups."""
    clusters = clusters_of(groups, fake)
    sample = Sample(fake, probability, np.ones(len(fake), dtype=np.int64), clusters.of_video)
    value = sample.figures(np.ones((1, clusters.count)))[0]
    drawn = np.concatenate([sample.figures(weights) for weights in resamples(clusters, seed=seed)])
    smaller = clusters.smaller_class(np.arange(len(fake)), fake)
    figures = {}
    for name in ("brier", "log_loss", "ece"):
        known, biased = float(value[PLACE[name]]), float(value[PLACE[name]]) if name == "ece" else None
        ends = interval(drawn[:, PLACE[name]], smaller, share=name != "log_loss", biased=biased)
        low, high = ends if ends is not None else (None, None)
        figures[name] = Figure(value=known, low=low, high=high, reason="" if ends else "there are too few groups")
    tenths = np.minimum((probability * 10).astype(int), 9)
    bins = tuple(
        (float(probability[tenths == tenth].mean()), float(fake[tenths == tenth].mean()), int((tenths == tenth).sum()))
        for tenth in np.unique(tenths)
    )
    return Reliability(brier=figures["brier"], log_loss=figures["log_loss"], ece=figures["ece"], bins=bins)


def _log_loss(fake: Booleans, probability: Floats) -> float:
    kept = np.clip(probability, CLIP, 1 - CLIP)
    return float(-np.log(np.where(fake, kept, 1 - kept)).mean())


def _chosen(groups: Sequence[str], kept: Booleans) -> list[str]:
    return [group for group, keep in zip(groups, kept.tolist(), strict=True) if keep]
