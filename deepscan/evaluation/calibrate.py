"""Calibrations and fusions of the detectors of a scan, fitted to its results with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from deepscan.errors import UsageError
from deepscan.evaluation.evaluate import score_of
from deepscan.evaluation.fusion import FittedFusion, fit_fusion
from deepscan.evaluation.labels import LabeledResult, LabelMatch
from deepscan.evaluation.profiles import FittedProfile, Method, fit_profile
from deepscan.wording import counted


def calibrate(
    match: LabelMatch,
    *,
    model: str | None = None,
    method: Method | Literal["auto"] = "auto",
    prevalence: float | None = None,
    max_fpr: float | None = None,
    seed: int = 0,
) -> FittedProfile:
    """Fit the calibration of one detector; videos without a score are left out.

    Args:
        match: results with labels, from `labeled_results`.
        model: name of the detector; it may be left out if there is one only.
        method: see `fit_profile`.
        prevalence: share of fakes among the videos that the profile is meant for.
        max_fpr: promised rate of genuine videos called fake.
        seed: of the folds and the bootstrap.

    Raises:
        UsageError: there are several detectors or none of that name, its results were made with several weights or
            settings, or there are too few videos for what was asked for.
        MachineError: scikit-learn is not installed.
    """
    names = models_of(match)
    if model is None and len(names) > 1:
        raise UsageError(
            f"The results are of {len(names)} detectors: choose one with --model {names[0]}, or make one score of "
            "them with --fuse."
        )
    name = names[0] if model is None else model
    chosen = [each for each in _of_model(match, name) if not np.isnan(score_of(each.result))]
    if not chosen:
        raise UsageError(f"{name} has no scored video with a label: calibrating needs some.")
    hashes = {kind: {getattr(each.result, f"{kind}_sha256") for each in chosen} for kind in ("weights", "settings")}
    several = [f"{counted(len(found), f'kind of {kind}', f'kinds of {kind}')}" for kind, found in hashes.items()]
    if any(len(found) > 1 for found in hashes.values()):
        raise UsageError(
            f"The results of {name} were made with {' and '.join(several)}, and a calibration holds for one: scan all "
            "videos alike."
        )
    return fit_profile(
        detector=name,
        weights_sha256=hashes["weights"].pop(),
        settings_sha256=hashes["settings"].pop(),
        fake=np.array([each.truth.label == "fake" for each in chosen]),
        score=np.array([score_of(each.result) for each in chosen]),
        groups=[each.cluster for each in chosen],
        labels=match.source,
        method=method,
        prevalence=prevalence,
        max_fpr=max_fpr,
        seed=seed,
    )


def fuse(
    match: LabelMatch,
    *,
    models: Sequence[str] | None = None,
    method: Method | Literal["auto"] = "auto",
    seed: int = 0,
) -> FittedFusion:
    """Fit a fusion of detectors, with the evidence that it is better than the best of them, or that it is not.

    Args:
        match: results with labels, from `labeled_results`.
        models: names of the detectors; all of the results, if they are left out.
        method: of the calibrations; see `fit_profile`.
        seed: of the folds and the bootstrap.

    Raises:
        UsageError: as for `calibrate`, of any of the detectors, or there are fewer than two.
        MachineError: scikit-learn is not installed.
    """
    names = list(models_of(match) if models is None else models)
    if len(names) < 2:
        raise UsageError("A fusion needs at least 2 detectors: scan the videos with several, as in --model lite,hff.")
    videos = {each.result.path: each for each in match.labeled}
    places = {path: place for place, path in enumerate(videos)}
    scores = {}
    for name in names:
        scores[name] = np.full(len(videos), np.nan)
        for each in _of_model(match, name):
            scores[name][places[each.result.path]] = score_of(each.result)
    return fit_fusion(
        [calibrate(match, model=name, method=method, seed=seed) for name in names],
        fake=np.array([each.truth.label == "fake" for each in videos.values()]),
        scores=scores,
        groups=[each.cluster for each in videos.values()],
        seed=seed,
    )


def models_of(match: LabelMatch) -> tuple[str, ...]:
    """Return the names of the detectors, in the order of the results."""
    return tuple(dict.fromkeys(each.result.model for each in match.labeled))


def _of_model(match: LabelMatch, model: str) -> list[LabeledResult]:
    found = [each for each in match.labeled if each.result.model == model]
    if not found:
        raise UsageError(f"No result with a label is of {model}: use one of {', '.join(models_of(match))}.")
    return found
