from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepscan.errors import MachineError, ModelError
from deepscan.runtime.backends.tensorrt.engine_store import (
    LOCK,
    MANIFEST,
    Engine,
    Flavor,
    Target,
    engine_folder,
    engines_folder,
    find_engine,
    locked,
    make_private,
    mismatch,
    read_own,
    read_plan,
    read_sealed,
    refuse_open,
    sweep,
    timings_path,
    write_sealed,
)
from deepscan.runtime.system.files import HOME_VARIABLE
from tests.runtime.engines import PLAN, TARGET, VERSION, contents, lite, record, remedy, rewrite, stored
from tests.runtime.watchdog import wait_until

ROOT = Path(__file__).parents[3]
AGAIN = r": build it again with `deepscan export lite --fp32 --engine tensorrt`\.$"
OTHER_USER = 12345


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def found(flavor: Flavor = "tensorrt", *, version: str = VERSION, target: Target = TARGET) -> Engine:
    return find_engine(lite(), flavor, version=version, target=target)


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run code in another process, with what tests use imported."""
    lines = f"import os, sys, time\nfrom tests.runtime.engines import *\n{code}"
    command = [sys.executable, "-c", lines, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_engine_that_was_saved_is_found_whole_in_a_private_folder() -> None:
    engine = stored()
    assert found() == engine
    assert read_plan(engine, remedy="") == PLAN
    assert engine.folder.name == f"lite-fp32-{lite().sha256[:12]}-tensorrt-sm86"
    assert [oct(path.stat().st_mode & 0o7777) for path in (engines_folder(), engine.folder)] == ["0o700"] * 2
    assert sorted(os.listdir(engine.folder)) == sorted([LOCK, MANIFEST, engine.plan_path.name])


def test_without_an_engine_the_command_that_builds_one_is_named() -> None:
    expected = (
        r"of lite\.onnx was built for compute capability 8\.6: build it with `deepscan export lite --fp32 --engine"
    )
    for make in (lambda: None, stored):
        make()
        with pytest.raises(MachineError, match=expected):
            found("tensorrt-rtx")
    with pytest.raises(MachineError, match=r"compute capability 8\.9"):
        found(target=Target(compute_capability="8.9"))


STALE: list[tuple[dict[str, object], str]] = [
    ({"version": "10.13.3.8"}, r"was built by TensorRT 10\.13\.3\.8, and this is 10\.13\.3\.9"),
    ({"flavor": "tensorrt-rtx"}, r"was built by TensorRT-RTX, not by TensorRT"),
    ({"target": msgspec.structs.replace(TARGET, compute_capability="8.9")}, r"capability 8\.9, and this is 8\.6"),
    (
        {"target": msgspec.structs.replace(TARGET, gpu="RTX A6000")},
        "for RTX A6000, and this is NVIDIA GeForce RTX 3090",
    ),
    ({"target": msgspec.structs.replace(TARGET, driver="570.1")}, r"with driver 570\.1, and this is 580\.65\.06"),
    ({"onnx_sha256": "0" * 64}, r"was built from another lite\.onnx"),
]


@pytest.mark.parametrize(("changes", "reason"), STALE)
def test_a_foreign_or_stale_engine_is_refused_and_left_alone(
    changes: dict[str, object], reason: str, home: Path
) -> None:
    rewrite(stored(), **changes)
    before = contents(home)
    with pytest.raises(ModelError, match=reason + AGAIN):
        found()
    assert contents(home) == before


def test_tensorrt_rtx_engines_run_on_any_gpu_of_their_compute_capability() -> None:
    engine = stored(flavor="tensorrt-rtx")
    assert found("tensorrt-rtx", target=Target(compute_capability="8.6", gpu="another", driver="1")) == engine


names = st.sampled_from(["a", "b"])
targets = st.builds(Target, compute_capability=names, gpu=names, driver=names)


@given(built=targets, present=targets, version=names, other_version=names, onnx=names, other_onnx=names)
def test_an_engine_fits_where_all_that_matters_is_equal(
    built: Target, present: Target, version: str, other_version: str, onnx: str, other_onnx: str
) -> None:
    artifact = msgspec.structs.replace(lite(), sha256=other_onnx)
    engine = msgspec.structs.replace(record(PLAN), target=built, version=version, onnx_sha256=onnx)
    equal = version == other_version and onnx == other_onnx
    assert (mismatch(engine, artifact, "tensorrt", version=other_version, target=present) == "") == (
        equal and built == present
    )
    engine = msgspec.structs.replace(engine, flavor="tensorrt-rtx")
    assert (mismatch(engine, artifact, "tensorrt-rtx", version=other_version, target=present) == "") == (
        equal and built.compute_capability == present.compute_capability
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def edit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "was cut or changed since it was built"),
        (edit, "was cut or changed since it was built"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "was cut or changed since it was built"),
        (link, "cannot be read"),
        (Path.unlink, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_damaged_plan_is_refused_before_tensorrt_sees_it(
    damage: Callable[[Path], object], reason: str, home: Path
) -> None:
    engine = stored()
    damage(engine.plan_path)
    before = contents(home)
    with pytest.raises(ModelError, match=rf"\.plan {reason}.*{AGAIN}"):
        read_plan(found(), remedy=remedy(engine))
    assert contents(home) == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "is not a record of an engine"),
        (link, "cannot be read"),
        (lambda path: path.write_bytes(b"{}"), "is not a record of an engine"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'"sha256": "', b'"sha256": "../')),
            "is not a record of an engine",
        ),
        (lambda path: (path.unlink(), path.mkdir()), r"cannot be read \(Is a directory\)"),
    ],
)
def test_a_damaged_record_is_refused(damage: Callable[[Path], object], reason: str, home: Path) -> None:
    damage(stored().folder / MANIFEST)
    before = contents(home)
    with pytest.raises(ModelError, match=rf"manifest\.json {reason}.*{AGAIN}"):
        found()
    assert contents(home) == before


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o720])
@pytest.mark.parametrize("which", ["engines", "the engine"])
def test_an_engine_that_others_could_reach_is_refused(mode: int, which: str, home: Path) -> None:
    engine = stored()
    folder = engines_folder() if which == "engines" else engine.folder
    folder.chmod(mode)
    before = contents(home)
    with pytest.raises(ModelError, match=rf"open to other users \(mode {mode:04o}\).*delete it, and build it again"):
        found()
    assert contents(home) == before


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    engine = stored()
    if os.geteuid() == 0:
        for path in (engine.folder, engine.plan_path):
            os.chown(path, OTHER_USER, -1)
        theirs, file = engine.folder, engine.plan_path
    else:
        theirs, file = Path("/usr"), Path("/etc/passwd")
    with pytest.raises(ModelError, match="belongs to another user, so no engine is taken from it: delete it, and X"):
        refuse_open(theirs, remedy="X")
    with pytest.raises(PermissionError, match="it belongs to another user"):
        read_own(file)


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    engine = stored()
    engine.folder.rename(tmp_path / "elsewhere")
    engine.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is not a folder, so no engine is taken from it: delete it"):
        found()


def test_a_new_engine_takes_the_place_of_the_old_one() -> None:
    old = stored()
    old.kernels_path.write_bytes(b"compiled for the old one")
    (old.folder / ".x.partial").write_bytes(b"left by a killed build")
    new = stored(b"new")
    assert found() == new
    assert read_plan(new, remedy="") == b"new"
    assert sorted(os.listdir(new.folder)) == sorted([LOCK, MANIFEST, new.plan_path.name])


def test_sweeping_keeps_what_belongs_to_the_engine_and_touches_nothing_it_cannot_read() -> None:
    engine = stored()
    engine.kernels_path.write_bytes(b"compiled")
    before = contents(engine.folder)
    (engine.folder / "leftover").write_bytes(b"")
    sweep(engine.folder)
    assert contents(engine.folder) == before
    (engine.folder / "leftover").write_bytes(b"")
    cut(engine.folder / MANIFEST)
    before = contents(engine.folder)
    sweep(engine.folder)
    assert contents(engine.folder) == before


def test_a_disk_that_is_full_leaves_the_old_engine(home: Path) -> None:
    stored()
    before = contents(home)
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
    write = "try: stored(bytes(5_000_000))\nexcept OSError as error: print(error.strerror)"
    done = child(limit + write)
    output, errors = done.communicate()
    assert (output.strip(), errors) == ("File too large", "")
    assert contents(home) == before
    assert read_plan(found(), remedy="") == PLAN
    # Where the plan still fits and its record does not, the plan goes again.
    done = child(limit.replace("2_000_000", "500") + write.replace("5_000_000", "400"))
    output, errors = done.communicate()
    assert (output.strip(), errors) == ("File too large", "")
    assert contents(home) == before


@pytest.mark.parametrize("attempt", range(3))
def test_a_build_that_is_killed_while_it_writes_leaves_an_engine_that_is_whole(
    attempt: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    plans = [bytes([value]) * 30_000_000 for value in (1, 2)]
    stored(plans[0])
    folder = engine_folder(lite(), "tensorrt", "8.6")
    with child(f"while True:\n for value in (2, 1): stored(bytes([value]) * {len(plans[0])})") as writer:
        try:
            wait_until(lambda: any(name.endswith(".partial") for name in os.listdir(folder)), "a file being written")
            time.sleep(0.005 * attempt)
        finally:
            writer.send_signal(signal.SIGKILL)
    assert read_plan(found(), remedy="") in plans
    with locked(folder):
        sweep(folder)
    assert not caplog.messages
    assert sorted(os.listdir(folder)) == sorted([LOCK, MANIFEST, found().plan_path.name])


HOLD = """
folder = engine_folder(lite(), "tensorrt", "8.6")
with locked(folder):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_the_second_builder_waits_until_the_first_is_done_or_dead(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deepscan")
    folder = stored().folder
    inside = threading.Event()

    def second() -> None:
        with locked(folder):
            inside.set()

    with child(HOLD) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            thread = threading.Thread(target=second, daemon=True)
            thread.start()
            wait_until(lambda: bool(caplog.messages), "the second builder to say that it waits")
            assert not inside.wait(0.1)
        finally:
            holder.send_signal(signal.SIGKILL)
    wait_until(inside.is_set, "the lock of a killed process to be lifted")
    thread.join()


def test_two_threads_exclude_each_other_too(tmp_path: Path) -> None:
    make_private(tmp_path / "engine")
    busy, most = [0], [0]

    def build() -> None:
        for _ in range(20):
            with locked(tmp_path / "engine"):
                busy[0] += 1
                most[0] = max(most[0], busy[0])
                time.sleep(0.0005)
                busy[0] -= 1

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_what_only_saves_time_is_checked_and_dropped_when_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "kernels"
    assert read_sealed(path) is None
    write_sealed(path, PLAN)
    assert read_sealed(path) == PLAN
    for damage in (cut, edit):
        write_sealed(path, PLAN)
        damage(path)
        assert read_sealed(path) is None
    write_sealed(path, PLAN)
    link(path)
    assert read_sealed(path) is None


def test_times_are_kept_apart_by_version_gpu_and_driver() -> None:
    paths = {
        timings_path(version, msgspec.structs.replace(TARGET, **change))
        for version in ("10.1", "10.2")
        for change in ({}, {"gpu": "A/../100"}, {"driver": "2"})
    }
    assert len(paths) == 6
    assert {path.parent for path in paths} == {engines_folder()}
