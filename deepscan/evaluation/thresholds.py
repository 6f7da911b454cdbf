"""Thresholds with a promised rate of false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from deepscan.errors import UsageError
from deepscan.evaluation.metrics import Floats
from deepscan.installing import needing_packages
from deepscan.profiles import Threshold
from deepscan.wording import counted

CONFIDENCE: Final = 0.95


def genuine_needed(max_fpr: float, false_alarms: int = 0) -> int:
    """Return how many genuine videos, of which so many are false alarms, promise a rate: 299 for 1 % without any."""
    low, high = false_alarms, 1
    while upper_bound(false_alarms, high) > max_fpr:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_bound(false_alarms, middle) <= max_fpr else (middle, high)
    return high


def upper_bound(false_alarms: int, genuine: int) -> float:
    """Return the upper Clopper-Pearson bound of a rate, one-sided, at 95 %."""
    if false_alarms >= genuine:
        return 1.0
    with needing_packages("Calibrating", "evaluate"):
        from scipy.stats import beta
    return float(beta.ppf(CONFIDENCE, false_alarms + 1, genuine - false_alarms))


def threshold_at(probability: Floats, groups: Sequence[str], max_fpr: float) -> Threshold:
    """Return the lowest threshold at which the rate of false alarms is at most the promised one, with 95 % confidence.

    A group counts as one genuine video, with the highest probability of its videos, as its videos are not independent.
    The number of false alarms that may be allowed is fixed by the number of groups, before any score is looked at;
    otherwise the bound would not hold.

    Args:
        probability: probability of *fake* of each genuine video, [M], which rises with the detector's score: as the
            order alone decides what is called fake, the probabilities may come from a fit to the same videos.
        groups: name of the group of each, [M].
        max_fpr: the promised rate, in (0, 1).

    Raises:
        UsageError: the rate is out of range, or there are too few genuine videos; it says how many are missing.
    """
    if not 0 < max_fpr < 1:
        raise UsageError(f"max_fpr must be a number between 0 and 1, not {max_fpr:g}.")
    names, numbers = np.unique(np.array(groups, dtype=object), return_inverse=True)
    count = len(names)
    needed = genuine_needed(max_fpr)
    if count < needed:
        what = "genuine videos" if count == len(groups) else "groups of genuine videos"
        raise UsageError(
            f"A rate of false alarms of {max_fpr:.4g} needs {needed} {what} with a score, and there are {count}: "
            f"{needed - count} are missing."
        )
    highest = np.zeros(count)
    np.maximum.at(highest, numbers, probability)
    allowed = 0
    while upper_bound(allowed + 1, count) <= max_fpr:
        allowed += 1
    above = float(np.sort(highest)[::-1][allowed])  # the first that must not be called fake
    if above >= 1.0:
        raise UsageError(
            f"No threshold has a rate of false alarms of {max_fpr:.4g}: more than {counted(allowed, 'group')} of "
            "genuine videos have a probability of 1."
        )
    fake_from = float(np.nextafter(above, 1.0))
    alarms = int((highest >= fake_from).sum())
    return Threshold(
        fake_from=fake_from,
        max_fpr=max_fpr,
        false_alarms=int((probability >= fake_from).sum()),
        genuine=len(probability),
        upper=upper_bound(alarms, count),
        groups=count,
    )
