"""Calibration profiles and fusions, as far as a scan applies them; `deepscan.evaluation` fits them.

A profile says what a detector's score means on footage like that of its labels. It holds for that detector, its weights
and its settings alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from deepscan.errors import UsageError
from deepscan.spec import LabelBand
from deepscan.wording import counted

CLIP: Final = 1e-6  # scores are kept this far from 0 and 1 before their logit is taken
SHOWN: Final = 12  # digits of a hash, in messages
Floats: TypeAlias = NDArray[np.float64]
Kind = TypeVar("Kind")


class Platt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method", tag="platt"):
    """Logistic calibration: `1 / (1 + exp(-(scale * logit(score) + offset)))` (Platt, 1999)."""

    scale: float
    offset: float

    @property
    def rises(self) -> bool:
        """Whether a higher score means a higher probability."""
        return self.scale > 0

    def probability(self, score: Floats) -> Floats:
        """Return the calibrated probabilities of *fake* of scores in [0, 1]."""
        return sigmoid(self.scale * logit(score) + self.offset)


class Isotonic(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method", tag="isotonic"
):
    """Isotonic calibration: linear between knots that never fall (Zadrozny and Elkan, 2002).

    Attributes:
        scores, probabilities: the knots.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse knots that do not rise."""
        rising = list(self.scores) == sorted(self.scores) and list(self.probabilities) == sorted(self.probabilities)
        if not self.scores or len(self.scores) != len(self.probabilities) or not rising:
            raise ValueError("the knots of an isotonic calibration are pairs that do not fall")

    @property
    def rises(self) -> bool:
        """Whether a higher score means a higher probability."""
        return self.probabilities[0] < self.probabilities[-1]

    def probability(self, score: Floats) -> Floats:
        """Return the calibrated probabilities of *fake* of scores in [0, 1]."""
        return np.interp(score, self.scores, self.probabilities)


class Threshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A threshold with a promised rate of false alarms.

    Attributes:
        fake_from: calibrated probability from which a video is called fake.
        max_fpr: the promised rate.
        false_alarms, genuine: how many of the genuine videos were called fake.
        upper: upper Clopper-Pearson bound of the rate, one-sided, at 95 %.
        groups: number of groups of genuine videos; if it is smaller than their number, the bound is that of the groups.
    """

    fake_from: float
    max_fpr: float
    false_alarms: int
    genuine: int
    upper: float
    groups: int


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The calibration of one detector. A file may hold more, such as the evidence for it.

    Attributes:
        schema: version of this record's format.
        detector, weights_sha256, settings_sha256: what it holds for, as in the rows that it was fitted to.
        labels: where the labels came from.
        fakes, genuine, groups: what it was fitted to.
        calibration: the map from score to probability.
        trained_prevalence: share of fakes among the videos.
        prevalence: share of fakes among the videos that it is meant for; None if it is that of the videos.
        threshold: threshold with a promised rate of false alarms, if one was asked for.
    """

    schema: Literal[1] = 1
    detector: str
    weights_sha256: str
    settings_sha256: str
    labels: str = ""
    fakes: int
    genuine: int
    groups: int
    calibration: Platt | Isotonic
    trained_prevalence: float
    prevalence: float | None = None
    threshold: Threshold | None = None

    def __post_init__(self) -> None:
        """Refuse values without meaning."""
        if not 0 < self.trained_prevalence < 1 or not (self.prevalence is None or 0 < self.prevalence < 1):
            raise ValueError("a prevalence lies between 0 and 1")
        if not self.calibration.rises:
            raise ValueError("a higher score means a higher probability")
        if self.threshold is not None and not 0 <= self.threshold.fake_from <= 1:
            raise ValueError("a threshold lies between 0 and 1")

    def __str__(self) -> str:
        """Return what it was fitted to, the promised rate of false alarms, and what it holds for, in words."""
        where = f" ({self.labels})" if self.labels else ""
        share = f", where {100 * self.prevalence:.3g} % are fake" if self.prevalence is not None else ""
        groups = counted(self.groups, "group")
        promise = "thresholds of the detector"
        if (held := self.threshold) is not None:
            promise = (
                f"fake from {held.fake_from:.4g}, at most {100 * held.max_fpr:.3g} % false alarms promised "
                f"({held.false_alarms} of {counted(held.genuine, 'genuine video')} in {counted(held.groups, 'group')})"
            )
        return (
            f"by {self.fakes} fakes and {counted(self.genuine, 'genuine video')} in {groups}{where}"
            f"{share}; {promise}; weights {self.weights_sha256[:SHOWN]}, settings {self.settings_sha256[:SHOWN]}"
        )

    @property
    def sha256(self) -> str:
        """Hash of everything that a scan uses."""
        used = {name: getattr(self, name) for name in Profile.__struct_fields__}
        return hashlib.sha256(msgspec.json.encode(used)).hexdigest()

    def probability(self, score: Floats) -> Floats:
        """Return the probability of *fake* of scores, at the prevalence that the profile is meant for."""
        calibrated = self.calibration.probability(np.asarray(score, dtype=np.float64))
        return at_prevalence(calibrated, self.trained_prevalence, self.prevalence)

    def calibrated(self, score: float) -> float:
        """Return the probability of one score, which is rounded first as in the rows that the profile was fitted to."""
        return float(self.probability(np.array([float(f"{score:.6g}")]))[0])

    def band(self, band: LabelBand) -> LabelBand:
        """Return the thresholds of labels: the promised one in place of a detector's, if there is one."""
        return band if self.threshold is None else band.with_threshold(self.threshold.fake_from)

    def refuse_other(self, detector: str, weights_sha256: str, settings_sha256: str, *, source: str = "") -> None:
        """Refuse a detector that the profile was not fitted to.

        Args:
            detector: name in the rows of a scan without the profile.
            weights_sha256: hash of its weights.
            settings_sha256: hash of the settings in such rows.
            source: file of the profile, for the message.

        Raises:
            UsageError: detector, weights or settings differ.
        """
        advice = "scan with the settings of those results, or calibrate anew with results of these settings"
        for what, mine, other, remedy in (
            ("detector", self.detector, detector, "calibrate with results of this one"),
            ("weights", self.weights_sha256, weights_sha256, "use those weights, or calibrate with results of these"),
            ("settings", self.settings_sha256, settings_sha256, advice),
        ):
            if mine != other:
                raise UsageError(
                    f"{source or 'The profile'} was made for the {what} {mine[:SHOWN]}, not for {other[:SHOWN]} of "
                    f"{detector}: {remedy}, or leave it out."
                )


class FusedSubset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model for videos that these detectors, and no others, have scored.

    Attributes:
        detectors: their names, in the order of the fusion.
        weights: of the calibrated log-odds of each.
        offset: added to them.
    """

    detectors: tuple[str, ...]
    weights: tuple[float, ...]
    offset: float

    def __post_init__(self) -> None:
        """Refuse another number of weights."""
        if not self.detectors or len(self.detectors) != len(self.weights):
            raise ValueError("a model of a fusion has one weight for each detector")


class Fusion(msgspec.Struct, frozen=True, kw_only=True):
    """A fusion of several detectors. A file may hold more, such as the evidence for it.

    Attributes:
        schema: version of this record's format.
        profiles: calibration of each detector; it holds for their weights and settings alone.
        subsets: models, for each set of detectors.
        trained_prevalence: share of fakes among the videos.
    """

    schema: Literal[1] = 1
    profiles: tuple[Profile, ...]
    subsets: tuple[FusedSubset, ...]
    trained_prevalence: float

    def __post_init__(self) -> None:
        """Refuse models of other detectors."""
        names = {profile.detector for profile in self.profiles}
        if not names or len(names) < len(self.profiles):
            raise ValueError("a fusion has one profile for each of its detectors")
        sets = {frozenset(subset.detectors) for subset in self.subsets}
        if len(sets) < 2 ** len(names) - 1 or not all(each <= names for each in sets):
            raise ValueError("a fusion has a model for each set of its detectors, and for no others")

    @property
    def sha256(self) -> str:
        """Hash of everything that a scan uses."""
        used = [[profile.sha256 for profile in self.profiles], self.subsets]
        return hashlib.sha256(msgspec.json.encode(used)).hexdigest()

    def probability(self, scores: Mapping[str, float | None]) -> float | None:
        """Return the probability of *fake* of one video; None if no detector has scored it.

        Args:
            scores: score by the name of the detector; None, or nothing, where there is none.
        """
        known = {
            profile.detector: float(profile.calibration.probability(np.array([float(f"{score:.6g}")]))[0])
            for profile in self.profiles
            if (score := scores.get(profile.detector)) is not None
        }
        subset = next((subset for subset in self.subsets if set(subset.detectors) == set(known)), None)
        if subset is None:
            return None
        odds = logit(np.array([known[name] for name in subset.detectors]))
        return float(sigmoid(odds @ np.array(subset.weights) + subset.offset))


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Return a profile from its JSON file.

    Raises:
        UsageError: the file cannot be read, or is no profile.
    """
    return _read(path, Profile, "calibration profile")


def read_fusion(path: str | os.PathLike[str]) -> Fusion:
    """Return a fusion from its JSON file.

    Raises:
        UsageError: the file cannot be read, or is no fusion.
    """
    return _read(path, Fusion, "fusion of detectors")


def _read(path: str | os.PathLike[str], kind: type[Kind], name: str) -> Kind:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)} cannot be read ({error.strerror}): give a {name}.") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{os.fspath(path)} is no {name} ({error}): make it anew.") from error


def at_prevalence(probability: Floats, trained: float, prevalence: float | None) -> Floats:
    """Return probabilities where another share of the videos is fake (Saerens et al., 2002, equation 4)."""
    if prevalence is None:
        return probability
    fake = probability * prevalence / trained
    return fake / (fake + (1 - probability) * (1 - prevalence) / (1 - trained))


def logit(score: Floats) -> Floats:
    """Return log-odds, finite at 0 and 1."""
    kept = np.clip(score, CLIP, 1 - CLIP)
    return np.log(kept / (1 - kept))


def sigmoid(value: Floats) -> Floats:
    """Return the probabilities of log-odds."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -value)))
