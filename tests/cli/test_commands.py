from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from deepscan.installing import install_extra
from deepscan.models.registry import BUILTIN
from deepscan.runtime.artifacts.artifacts import embedded_manifest
from deepscan.runtime.system.machine import nvidia_gpus
from tests.cli.console import ENVIRONMENT, assert_one_line, deepscan

HEAVY = {"av", "cv2", "numpy", "onnx", "onnxruntime", "torch", "PIL", "safetensors", "matplotlib", "openvino"}
COMMANDS = ("scan", "evaluate", "calibrate", "models", "doctor", "export", "weights", "bench")


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    ran = deepscan(*arguments)
    assert ran.code == (0 if arguments else 2)
    assert all(f" {command} " in ran.text + ran.err for command in COMMANDS)


def test_the_help_of_scan_names_every_option_and_the_exit_codes() -> None:
    text = deepscan("scan", "--help").text
    options = (
        "--out --model --recursive --no-recursive --include --exclude --from-file --sampling --frames --jobs "
        "--threshold --device --precision --stats --quiet --verbose --aggregate --detect-every --min-face --no-mirror "
        "--clips --face-detector --backend"
    )
    assert [option for option in options.split() if option not in text] == []
    assert [mode for mode in ("full: ", "quick: ", "paper: ") if mode not in text] == []
    assert "130 interrupted" in text


def test_the_version_is_that_of_the_package() -> None:
    ran = deepscan("--version")
    assert (ran.code, ran.text, ran.err) == (0, f"deepscan {version('deepscan-video')}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["scan", "--help"],
        ["evaluate", "--help"],
        ["weights", "--help"],
        ["weights", "add", "--help"],
        ["--version"],
    ],
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom deepscan.cli.main import main\nsys.argv[0] = 'deepscan'\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    imported = set(child.stderr.split())
    assert "deepscan.cli.scan" in imported
    assert imported & HEAVY == set()
    assert [name for name in imported if name.startswith("deepscan.runtime")] == []


def test_models_says_what_the_embedded_detector_is() -> None:
    ran = deepscan("models")
    assert ran.code == 0
    manifest = embedded_manifest("lite")
    wanted = ("lite", manifest.spec.title, "224 x 224, RGB", "embedded", manifest.weights_sha256[:12], "fake from 0.85")
    assert [part for part in wanted if part not in deepscan("models", "lite").text] == []
    assert [part for part in wanted if part not in ran.text] == []


def test_models_lists_every_detector_and_shows_one_alone() -> None:
    listed = deepscan("models").text
    assert [detector.title for detector in BUILTIN.values() if detector.title not in listed] == []
    alone = deepscan("models", "ftcn")
    assert alone.code == 0
    assert alone.text in listed
    assert "32 frames of 224 x 224, RGB" in alone.text
    assert re.search(r"weights here +no\s", alone.text)


def test_models_refuses_an_unknown_name_with_the_known_ones() -> None:
    ran = deepscan("models", "heavy")
    assert_one_line(ran, 2)
    assert all(name in ran.err for name in BUILTIN)


def test_doctor_names_what_a_scan_can_use_and_how_to_add_what_is_missing() -> None:
    ran = deepscan("doctor")
    assert ran.code == 0
    lines = ran.text.splitlines()
    found = {line[5:]: line[:3] + lines[number + 1] for number, line in enumerate(lines) if line[3:5] == "  "}
    assert {"FFmpeg", "ONNX Runtime", "CUDA", "TensorRT", "torch"} <= found.keys()
    assert version("av") in found["FFmpeg"]
    assert version("onnxruntime") in found["ONNX Runtime"]
    assert "yes" in found["torch"]
    assert ("yes" in found["CUDA"]) == bool(nvidia_gpus())
    lacking = [name for name in ("TensorRT", "openvino") if "no " in found[name]]
    assert [name for name in lacking if not re.search(rf"^  {name}: .* -m pip install ", ran.text, re.MULTILINE)] == []
    assert "Scans run on: C" in ran.text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_made_for_each_shell(shell: str) -> None:
    ran = deepscan("--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert ran.code == 0
    assert "_DEEPSCAN_COMPLETE" in ran.text


@pytest.mark.parametrize(("typed", "offered"), [("deepscan do", "doctor"), ("deepscan scan --samp", "--sampling")])
def test_commands_and_options_are_completed(typed: str, offered: str) -> None:
    words = {"_DEEPSCAN_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    ran = deepscan(env=words)
    assert ran.text.split() == [offered]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["export", "lite", "--weights", "missing.safetensors"], 3),
        (["export", "heavy", "--weights", "missing.safetensors"], 2),
    ],
)
def test_an_export_that_cannot_be_made_says_so_in_one_line(tmp_path: Path, arguments: list[str], code: int) -> None:
    assert_one_line(deepscan(*arguments, cwd=tmp_path), code)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["export", "lite", "--weights", "x"], "Exporting"),
        (["weights", "add", "x"], "Adding weights"),
    ],
)
def test_without_torch_what_needs_it_says_what_to_install(tmp_path: Path, arguments: list[str], what: str) -> None:
    script = "import sys\nsys.modules['torch'] = None\nfrom deepscan.cli.main import main\nmain()"
    child = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ENVIRONMENT,
        cwd=tmp_path,
    )
    assert child.returncode == 3
    assert child.stderr == f"deepscan: {what} needs the package torch: run `{install_extra('export')}`.\n"


def test_a_scan_needs_nothing_of_the_export_extra() -> None:
    video = Path(__file__).parents[2] / "examples" / "no_face_mpeg4.avi"
    script = (
        "import json, sys\n"
        "for name in ('torch', 'safetensors', 'onnxscript'): sys.modules[name] = None\n"
        "from deepscan import scan\n"
        "print(json.dumps([result.status for result in scan(sys.argv[1], frames=1)]))"
    )
    child = subprocess.run([sys.executable, "-c", script, str(video)], capture_output=True, text=True, check=True)
    assert json.loads(child.stdout) == ["no_face"]
