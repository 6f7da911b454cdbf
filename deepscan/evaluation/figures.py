"""What an evaluation finds: figures with intervals and coverage, per detector and for parts of the videos."""

from __future__ import annotations

from typing import Final

import msgspec

from deepscan.results import Label

# Figures in words, in the order in which they are shown; the confusion matrix stands for itself.
TITLES: Final = {
    "auc": "AUC",
    "average_precision": "average precision",
    "eer": "equal error rate",
    "tpr_at_fpr_0.1%": "fakes found at 0.1 % false alarms",
    "tpr_at_fpr_1%": "fakes found at 1 % false alarms",
    "tpr_at_fpr_5%": "fakes found at 5 % false alarms",
    "tpr_at_fpr_10%": "fakes found at 10 % false alarms",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "calibration error (ECE)",
    "balanced_accuracy": "balanced accuracy",
    "real_called_fake": "the rate of false alarms",
}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure with its 95 % interval.

    Attributes:
        value: the figure; None if it does not exist.
        low, high: ends of the interval; None if there are too few groups for one.
        reason: why there is no value, or no interval.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        """Return `0.71 [0.57, 0.83]`, or what is missing."""
        if self.value is None:
            return f"none ({self.reason})"
        ends = f"[{self.low:z.3f}, {self.high:z.3f}]" if self.low is not None else f"({self.reason})"
        return f"{self.value:z.3f} {ends}"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one detector on some videos; see `docs/evaluation.md` for what each of them means.

    Attributes:
        fakes, genuine: number of videos.
        scored_fakes, scored_genuine: how many of them have a score.
        fake_groups, genuine_groups: number of groups of the scored ones.
        figures: by name; videos without a score are left out.
        as_errors: by name; videos without a score count as errors.
        caution: sentence that says how small the sample is; empty if it is not.
    """

    fakes: int
    genuine: int
    scored_fakes: int
    scored_genuine: int
    fake_groups: int
    genuine_groups: int
    figures: dict[str, Figure]
    as_errors: dict[str, Figure]
    caution: str = ""

    @property
    def coverage(self) -> float:
        """Share of the videos that have a score."""
        total = self.fakes + self.genuine
        return (self.scored_fakes + self.scored_genuine) / total if total else 0.0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a part of the videos.

    Attributes:
        factor: what the videos are divided by, such as `method` or `codec`.
        value: what the videos of this part have in common.
        against: for a method, which genuine videos its fakes are compared with.
        figures: the figures.
    """

    factor: str
    value: str
    against: str = ""
    figures: Figures


class WorstError(msgspec.Struct, frozen=True, kw_only=True):
    """One of the videos whose score is furthest from the truth.

    Attributes:
        path: path of the video.
        score: probability of *fake*, in [0, 1].
        label: what the detector called it.
        method: how it was made, if it is fake.
        peak_start_seconds, peak_end_seconds: the most suspicious segment.
    """

    path: str
    score: float
    label: Label | None
    method: str | None = None
    peak_start_seconds: float | None = None
    peak_end_seconds: float | None = None


class DetectorFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one detector.

    Attributes:
        detector: its name.
        weights_sha256, settings_sha256: hashes of the results; more than one if they were made in different ways.
        overall: figures of all videos together: pooled.
        parts: figures by data set, method, codec and so on.
        macro: means over the parts of a factor (`dataset`, `method`), each part counting alike, by factor and name.
        worst_fakes: fakes with the lowest scores.
        worst_genuine: genuine videos with the highest scores.
        unscored: number of videos without a score, by status.
        frame_level: figures of crops or clips instead of videos, with the labels and groups of their videos; None
            without a per-frame file.
        notes: sentences about the results.
    """

    detector: str
    weights_sha256: tuple[str, ...]
    settings_sha256: tuple[str, ...]
    overall: Figures
    parts: tuple[Part, ...]
    macro: dict[str, dict[str, Figure]]
    worst_fakes: tuple[WorstError, ...]
    worst_genuine: tuple[WorstError, ...]
    unscored: dict[str, int]
    frame_level: Figures | None = None
    notes: tuple[str, ...] = ()


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Differences between two detectors on the videos that both have scored.

    Attributes:
        first, second: names of the detectors.
        fakes, genuine: number of videos.
        figures: figure of the first minus that of the second, by name, with paired intervals.
    """

    first: str
    second: str
    fakes: int
    genuine: int
    figures: dict[str, Figure]

    def sentence(self, name: str = "auc") -> str:
        """Return which of the two is better by how much, or that it is not known."""
        found, title = self.figures[name], TITLES.get(name, name)
        if found.value is None or found.low is None or found.high is None:
            return f"{self.first} and {self.second} cannot be compared in {title}: {found.reason}."
        lower_is_better = name in ("eer", "brier", "log_loss", "ece") or name in (
            "real_called_fake",
            "fake_called_real",
            "fake_called_uncertain",
            "real_called_uncertain",
        )
        value, low, high = found.value, found.low, found.high
        first, second = self.first, self.second
        if (value < 0) != lower_is_better:
            first, second = second, first
        if value < 0:
            value, low, high = -value, -high, -low
        by = f"{value:z.3f} [{low:z.3f}, {high:z.3f}] in {title}"
        if low <= 0 <= high:
            return f"Whether {first} is better than {second} is not known: {by}."
        return f"{first} is better than {second} by {by}."


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation finds.

    Attributes:
        labels: where the labels come from, and the name of their layout.
        detectors: figures of each detector.
        differences: of each pair of detectors.
        notes: sentences about labels and results: what is left out, leaks, damaged lines.
        resamples, seed: of the bootstrap.
    """

    labels: str
    detectors: tuple[DetectorFigures, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    resamples: int
    seed: int
