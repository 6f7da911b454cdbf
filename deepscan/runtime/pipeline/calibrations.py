"""Calibrations of a scan: which profile is applied to which of its detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from deepscan.errors import UsageError
from deepscan.options import ScanOptions
from deepscan.profiles import Profile, read_profile
from deepscan.runtime.artifacts.profile_store import installed_profiles

NONE: Final = "none"  # in place of a file
UNTRAINED: Final = " (untrained)"


class Uncalibrated(NamedTuple):
    """A detector of a scan as its rows would name it without a profile and without `--threshold`."""

    model: str
    weights_sha256: str
    settings_sha256: str

    def takes(self, profile: Profile) -> bool:
        """Tell whether a profile was fitted to this detector, its weights and its settings."""
        hashes = profile.weights_sha256, profile.settings_sha256
        return bare_name(profile.detector) == bare_name(self.model) and hashes == self[1:]


def bare_name(model: str) -> str:
    """Return the name of a detector without what distinguishes its weights in results."""
    return model.removesuffix(UNTRAINED).partition("@")[0]


def resolve_profiles(detectors: Sequence[Uncalibrated], options: ScanOptions) -> list[Profile | None]:
    """Return the profile of each detector: a given one, else an installed one, else none.

    Raises:
        UsageError: a file is no profile, or was made for none of the detectors.
    """
    if options.fuse is not None and options.calibration not in ((), (NONE,)):
        raise UsageError("--fuse takes the detectors' own scores, and has profiles itself: leave out --calibration.")
    if options.fuse is not None or options.calibration == (NONE,):
        return [None for _ in detectors]
    if NONE in options.calibration:
        raise UsageError("--calibration none applies no profile at all: leave out the files, or none.")
    chosen: dict[Uncalibrated, Profile] = {}
    for path in options.calibration:
        profile = read_profile(path)
        fitting = [detector for detector in detectors if detector.takes(profile)]
        if not fitting:
            refuse_profile(profile, path, detectors)
        if fitting[0] in chosen:
            raise UsageError(f"{path} is a second profile of {fitting[0].model}: give one.")
        chosen[fitting[0]] = profile
    installed = installed_profiles()
    for detector in detectors:
        for profile in installed:
            if detector.takes(profile):
                chosen.setdefault(detector, profile)
    return [chosen.get(detector) for detector in detectors]


def unused_profiles(detectors: Sequence[Uncalibrated], profiles: Sequence[Profile | None]) -> list[str]:
    """Return a sentence for each detector whose installed profiles are all for other settings."""
    installed = installed_profiles()
    return [
        f"{detector.model} has an installed profile, which was made for other settings than those of this scan and is "
        "not applied."
        for detector, profile in zip(detectors, profiles, strict=True)
        if profile is None
        and any(
            bare_name(each.detector) == bare_name(detector.model) and each.weights_sha256 == detector.weights_sha256
            for each in installed
        )
    ]


def refuse_profile(profile: Profile, path: str, detectors: Sequence[Uncalibrated]) -> None:
    """Refuse a profile that fits none of the detectors.

    Raises:
        UsageError: always.
    """
    named = [detector for detector in detectors if bare_name(detector.model) == bare_name(profile.detector)]
    if not named:
        models = ", ".join(detector.model for detector in detectors)
        raise UsageError(
            f"{path} is a profile of {profile.detector}, which is not among the detectors of this scan ({models}): "
            f"leave it out, or add the detector to --model."
        )
    same_weights = [detector for detector in named if detector.weights_sha256 == profile.weights_sha256]
    detector = (same_weights or named)[0]
    profile.refuse_other(profile.detector, *detector[1:], source=path)
