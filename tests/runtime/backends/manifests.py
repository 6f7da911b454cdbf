"""Manifests of artifacts that need not exist."""

from __future__ import annotations

from functools import cache

import msgspec

from deepscan.runtime.artifacts.artifacts import Manifest, Precision, embedded_manifest


@cache
def manifest_in(precision: Precision) -> Manifest:
    """Return the manifest of `lite` as if it were of this precision."""
    return msgspec.structs.replace(embedded_manifest("lite"), precision=precision)
