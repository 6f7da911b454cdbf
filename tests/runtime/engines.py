"""Engines for tests of the store: real in all but the plan, which is any bytes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec
import pytest

from deepscan.runtime.artifacts.artifacts import Manifest, load_artifact
from deepscan.runtime.backends.tensorrt.engine_store import (
    MANIFEST,
    BatchProfile,
    Engine,
    EngineManifest,
    Flavor,
    Target,
    engine_folder,
    engines_folder,
    locked,
    make_private,
    rebuilding,
    save_engine,
)
from deepscan.runtime.backends.tensorrt.tensorrt_backend import usable_packages
from deepscan.runtime.backends.tensorrt.tensorrt_packages import Package, installed_flavors, present_target

VERSION = "10.13.3.9"
TARGET = Target(compute_capability="8.6", gpu="NVIDIA GeForce RTX 3090", driver="580.65.06")
PLAN = bytes(range(256)) * 40


@cache
def lite() -> Manifest:
    return load_artifact("lite").manifest


def record(plan: bytes, flavor: Flavor = "tensorrt") -> EngineManifest:
    return EngineManifest(
        detector="lite",
        precision="fp32",
        onnx_sha256=lite().sha256,
        weights_sha256=lite().weights_sha256,
        flavor=flavor,
        version=VERSION,
        target=TARGET,
        batches=BatchProfile(smallest=1, tuned=8, largest=8),
        workspace_bytes=1 << 30,
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=len(plan),
        built=0.0,
        build_seconds=1.0,
        warnings=(),
    )


def packages_here() -> tuple[Package, ...]:
    """Return the installed packages of TensorRT that run on this machine's GPU; without one, skip the test."""
    if not installed_flavors():
        pytest.skip("no package of TensorRT is installed")
    target = present_target()
    assert target is not None, "there is no GPU"
    found = usable_packages(target)
    if not found:
        pytest.skip(f"no installed package of TensorRT runs on {target.gpu}")
    return found


def stored(plan: bytes = PLAN, flavor: Flavor = "tensorrt") -> Engine:
    """Put an engine into the store as a build does."""
    folder = engine_folder(lite(), flavor, TARGET.compute_capability)
    make_private(engines_folder())
    make_private(folder)
    engine = Engine(record(plan, flavor), folder)
    with locked(folder):
        save_engine(engine, plan)
    return engine


def rewrite(engine: Engine, **changes: object) -> None:
    """Change an engine's record on the disk."""
    changed = msgspec.structs.replace(engine.manifest, **changes)
    (engine.folder / MANIFEST).write_bytes(msgspec.json.encode(changed))


def remedy(engine: Engine) -> str:
    return rebuilding(lite(), engine.manifest.flavor)


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is in a folder: by name the mode and, of a file, when it was written, and the bytes."""
    found = {}
    for path in folder.rglob("*"):
        status, is_file = path.lstat(), path.is_file()
        written = status.st_mtime_ns if is_file else 0
        found[str(path.relative_to(folder))] = (status.st_mode, written, path.read_bytes() if is_file else b"")
    return found
