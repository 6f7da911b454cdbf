"""Calibration profiles that are applied to every scan on this machine, unless `--calibration` says otherwise.

    <data folder>/profiles/<hash of detector, weights and settings>.json

See `weights_store` for the data folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from deepscan.errors import OutputError, UsageError
from deepscan.profiles import Profile, read_profile
from deepscan.runtime.system.files import atomic_write, data_folder


def install_profile(profile: Profile) -> Path:
    """Make a profile the default of its detector, with its weights and settings, and return its place.

    Raises:
        OutputError: it cannot be written.
    """
    used = {name: getattr(profile, name) for name in Profile.__struct_fields__}
    path = _path(profile)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write({path: [msgspec.json.format(msgspec.json.encode(used), indent=2), b"\n"]})
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): check its permissions.") from error
    return path


def installed_profiles() -> list[Profile]:
    """Return the installed profiles, by detector; those that cannot be read are in `damaged_profiles`."""
    found = [profile for _, profile in _profiles() if profile is not None]
    return sorted(found, key=lambda each: (each.detector, each.weights_sha256, each.settings_sha256))


def damaged_profiles() -> list[Path]:
    """Return the files of installed profiles that cannot be read: they can only be deleted."""
    return [path for path, profile in _profiles() if profile is None]


def remove_profile(profile: Profile) -> None:
    """Delete an installed profile.

    Raises:
        OutputError: it cannot be deleted.
    """
    path = _path(profile)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be deleted ({error.strerror}): check its permissions.") from error


def _path(profile: Profile) -> Path:
    key = "\n".join((profile.detector, profile.weights_sha256, profile.settings_sha256))
    return data_folder() / "profiles" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _profiles() -> list[tuple[Path, Profile | None]]:
    found: list[tuple[Path, Profile | None]] = []
    for path in sorted((data_folder() / "profiles").glob("*.json")):
        try:
            found.append((path, read_profile(path)))
        except UsageError:
            if path.exists():  # otherwise another process has removed it meanwhile
                found.append((path, None))
    return found
