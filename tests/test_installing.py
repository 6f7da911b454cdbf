"""The commands that install what is missing, for every way in which this package may have got here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deepscan import installing
from deepscan.installing import gpu_runtime, install_extra, install_packages, replace_packages

METADATA = """Metadata-Version: 2.4
Name: deepscan-video
Version: 1.2.3
Requires-Dist: numpy>=2.0
Provides-Extra: export
Requires-Dist: safetensors>=0.5; extra == 'export'
Requires-Dist: torch>=2.8; (python_version >= "3.11") and extra == 'export'
Provides-Extra: plot
Requires-Dist: matplotlib; extra == 'plot'
"""


def installed_as(
    folder: Path, monkeypatch: pytest.MonkeyPatch, origin: Mapping[str, object] | None, others: set[str] | None = None
) -> None:
    """Make this package look as if it had been installed in another way."""
    info = folder / "deepscan_video-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(installing, "distribution", lambda _: PathDistribution(info))
    there = others or {"onnxruntime"}
    monkeypatch.setattr(installing, "installed_version", lambda package: "1.0" if package in there else None)


def arguments_of(command: str) -> list[str]:
    words = shlex.split(command)
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    return words[4:]


def test_from_an_index_the_extra_is_of_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_as(tmp_path, monkeypatch, None)
    (argument,) = arguments_of(install_extra("export"))
    requirement = Requirement(argument)
    assert (requirement.name, requirement.extras, str(requirement.specifier)) == (
        "deepscan-video",
        {"export"},
        "==1.2.3",
    )


def test_from_an_editable_checkout_the_checkout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "a check-out's"
    checkout.mkdir()
    installed_as(tmp_path, monkeypatch, {"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert arguments_of(install_extra("plot")) == ["-e", f"{checkout}[plot]"]


@pytest.mark.parametrize("name", ["folder", "deepscan_video-1.2.3-py3-none-any.whl"])
def test_from_a_folder_or_a_wheel_its_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = tmp_path / name
    place.mkdir()
    installed_as(tmp_path, monkeypatch, {"url": place.as_uri(), "dir_info": {}})
    (argument,) = arguments_of(install_extra("export"))
    requirement = Requirement(argument)
    assert (requirement.name, requirement.extras, requirement.url) == ("deepscan-video", {"export"}, place.as_uri())


def test_a_wheel_that_was_deleted_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_as(tmp_path, monkeypatch, {"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}})
    assert arguments_of(install_extra("export")) == ["deepscan-video[export]==1.2.3"]


def test_from_a_repository_the_commit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = {"url": "https://example.org/d.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    installed_as(tmp_path, monkeypatch, origin)
    (argument,) = arguments_of(install_extra("export"))
    assert Requirement(argument).url == "git+https://example.org/d.git@abc"


def test_beside_the_runtime_for_gpus_pip_is_not_told_to_install_the_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_as(tmp_path, monkeypatch, None, {"onnxruntime-gpu"})
    assert arguments_of(install_extra("export")) == ["safetensors>=0.5", "torch>=2.8"]


def test_the_swap_to_the_runtime_for_gpus_ends_with_that_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_as(tmp_path, monkeypatch, None)
    extra, removal, runtime = gpu_runtime().split(" && ")
    assert arguments_of(extra) == ["deepscan-video[cuda]==1.2.3"]
    assert shlex.split(removal)[3:] == ["uninstall", "-y", "onnxruntime"]
    assert arguments_of(runtime) == ["onnxruntime-gpu"]


def test_without_pip_its_stand_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: "/bin/uv")
    assert shlex.split(install_packages("a>1")) == ["uv", "pip", "install", "--python", sys.executable, "a>1"]
    assert "-y" not in replace_packages(("a", "b"), "b")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert install_packages("a").startswith(f"{shlex.quote(sys.executable)} -m ensurepip && ")


def test_an_interpreter_with_a_space_in_its_path_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")
    assert install_packages("a").startswith("'/my env/bin/python' -m pip install")
