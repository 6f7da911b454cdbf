"""What pyproject.toml and the workflow say of each other, and what the built package says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
REPOSITORY = PROJECT["urls"]["Homepage"]


def test_one_repository_is_named_throughout() -> None:
    addresses = re.findall(r"https://(?:github|raw\.githubusercontent)\.com/([^/\"']+/[^/\"']+)", TEXT)
    assert set(addresses) == {REPOSITORY.removeprefix("https://github.com/")}
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= PROJECT["urls"].keys()


def test_the_workflow_runs_the_gate_with_each_python_of_the_classifiers() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    matrix = re.search(r"python: \[(.*)\]", workflow)
    assert matrix is not None
    versions = re.findall(r'"([\d.]+)"', matrix[1])
    assert versions == re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert "- run: .ci/run" in workflow


def test_the_gate_and_the_hooks_follow_recipes_that_exist() -> None:
    recipes = (ROOT / "noxfile.py").read_text()
    names = re.findall(r"@nox\.session\ndef (\w+)", recipes)
    gate = re.findall(r"^nox -s (.*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    hooks = re.findall(r"entry: nox -s (\w+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert sorted(["test", *gate[0].split()]) == sorted(names)  # the tests are the README's second command
    assert set(hooks) <= set(names)
    parallel = re.search(r"^PARALLEL = \((.*)\)", recipes, re.MULTILINE)
    assert parallel is not None
    options = " ".join(re.findall(r'"(.*?)"', parallel[1]))
    assert f".venv-test/bin/python -m pytest {options}\n" in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_links_of_the_built_readme_work_outside_the_repository(tmp_path: Path) -> None:
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)]
    built = subprocess.run(wheel, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = tmp_path.glob("deepscan_video-*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
        assert not [name for name in archive.namelist() if not re.match(r"deepscan(/|_video-)", name)]
    assert metadata["Name"] == "deepscan-video"
    assert f"Issues, {REPOSITORY}/issues" in metadata.get_all("Project-URL", [])
    targets = re.findall(r"\]\(([^)\s]+)\)", metadata.get_payload(decode=True).decode())  # type: ignore[union-attr]
    assert len(targets) > 10
    for target in targets:
        assert target.startswith(("https://", "#")), target
        inside = target.partition("#")[0].removeprefix(f"{REPOSITORY}/blob/main/")
        assert inside == target.partition("#")[0] or (ROOT / inside).exists(), target


@pytest.mark.slow
def test_the_source_distribution_has_what_builds_the_package_and_no_strays(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    top = {name for name in names if not name.startswith("deepscan/")}
    assert top - {".gitignore", "PKG-INFO"} == {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}
