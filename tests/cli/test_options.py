"""One set of options: for programs, for the command line, and for configuration files."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from msgspec import structs

import deepscan
from deepscan.arguments import option_fields
from deepscan.cli.app import app
from deepscan.cli.options import NOT_IN_FILES, PANELS, options_from, toml_of
from deepscan.cli.running import run
from deepscan.cli.scan_options import OutputOptions
from deepscan.limits import Limits
from deepscan.options import BACKEND_VARIABLE, ScanKeywords, ScanOptions
from tests.footage import NO_FACE

ALL = (OutputOptions, ScanOptions, Limits)
# What programs have no use for.
COMMAND_LINE_ONLY = set(
    """out fail-on dry-run quiet verbose config show-config from-file jsonl csv-bom stats log retry-failed fresh prune
    hash""".split()
)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["scan", *arguments, "--show-config"]) == 0
    return capsys.readouterr().out


def config(folder: Path, text: str) -> str:
    (folder / "scan.toml").write_text(text)
    return str(folder / "scan.toml")


def test_no_option_exists_in_one_and_not_in_the_other() -> None:
    command = typer.main.get_command(app).commands["scan"]  # type: ignore[attr-defined]
    visible = [option for each in command.params if not getattr(each, "hidden", False) for option in each.opts]
    on_the_command_line = {option.removeprefix("--") for option in visible if option.startswith("--")}
    keys = {each.key for struct in (ScanOptions, Limits) for each in option_fields(struct)}
    assert on_the_command_line == keys | COMMAND_LINE_ONLY
    assert {each.key for each in option_fields(OutputOptions)} == COMMAND_LINE_ONLY
    assert {each.name for each in option_fields(Limits)} == set(Limits.__struct_fields__)
    assert {each.name for each in option_fields(ScanOptions)} | {"limits"} == set(ScanOptions.__struct_fields__)
    assert list(get_type_hints(ScanKeywords)) == list(ScanOptions.__struct_fields__)


def test_every_option_is_described_in_a_panel() -> None:
    for each in (field for struct in ALL for field in option_fields(struct)):
        assert each.option.help.endswith("."), each
        assert each.option.panel in PANELS
        assert each.kind is bool or each.option.metavar, each


@pytest.mark.parametrize("command", ["", "scan", "export", "bench", "show", "models", "weights", "weights add"])
def test_the_help_names_no_types_of_switches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert "<bool>" not in capsys.readouterr().out


def test_what_is_in_force_can_be_fed_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = shown(
        capsys,
        *("--model", "lite,a\\b \x7f€.onnx", "--include", "*.mp4", "--include", 'a"b', "--no-recursive", "--quiet"),
        *("--memory", "2048", "--max-file-size", "7", "--timeout", "0", "--threshold", "0.25", "--mirror"),
        *("--max-frames", "0", "--on-limit", "truncate", "--hash", "full", "--trace", "t", "--out", "-"),
    )
    assert shown(capsys, "--config", config(tmp_path, first)) == first
    found = tomllib.loads(first)
    assert found["model"] == ["lite", "a\\b \x7f€.onnx"]
    assert (found["memory"], found["max-file-size"], found["timeout"], found["max-frames"]) == (2048, 7, 0, 0)
    output, options, limits = options_from({"config": str(tmp_path / "scan.toml")}, *ALL)
    assert (options.memory, limits.file_bytes, options.timeout) == (2 << 30, 7 << 20, None)
    assert (output.quiet, options.recursive, options.mirror) == (True, False, True)


def test_what_is_in_force_without_options_are_the_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "openvino")
    text = shown(capsys)
    assert options_from(tomllib.loads(text) and {}, *ALL) == [OutputOptions(), ScanOptions(), Limits()]
    assert text == toml_of(OutputOptions(show_config=True), ScanOptions(backend="openvino"), Limits())
    assert [line for line in text.splitlines() if line.startswith("# ") and "=" not in line] == [
        f"# {panel}" for panel in PANELS if panel is not None
    ]
    assert not {each.split(" =")[0] for each in text.splitlines()} & NOT_IN_FILES
    assert "# frames =  # 32, or the authors'\n" in text


def test_the_command_line_wins(tmp_path: Path) -> None:
    path = config(tmp_path, 'frames = 7\nmin_face = 20\nexclude = ["a", "b"]\nquiet = true\nstats = true\n')
    given: dict[str, Any] = {"config": path, "frames": 3, "no_quiet": True, "include": [], "exclude": ["c"]}
    output, options, _ = options_from(given, *ALL)
    assert (options.frames, options.min_face, options.exclude) == (3, 20, ("c",))
    assert (output.quiet, output.stats) == (False, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("frmaes = 3", "frmaes is not an option: see `deepscan scan --show-config` for all of them."),
        ("config = 'x'", "config is not an option: see"),
        ("[limits]\nframes = 3", "limits is not an option: see"),
        ("min-face = 3\nmin_face = 3", "min_face is given twice, with - and with _: leave one out."),
        ("frames = '3'", "frames must be a whole number from 1 to 1,000,000, not '3'."),
        ("frames = true", "frames must be a whole number from 1 to 1,000,000, not True (bool)."),
        ("memory = 0", "memory must be a whole number from 1 to 1,073,741,824, not 0."),
        ("threshold = 1.5", "threshold must be a number from 0 to 1, not 1.5."),
        ("recursive = 'no'", "recursive must be True or False, not 'no'."),
        ("sampling = 'some'", "sampling 'some' is not known: use one of full, quick, paper."),
        ("include = [3]", "include must be text, not 3."),
        ("[include]\na = 3", "include is a table: give the option's value with =."),
        ("out = 3", "out must be text, not 3."),
        ("max-faces = -1", "max-faces must be a whole number from 0 to"),
        ("device = 1979-05-27", "device must be text, not datetime.date(1979, 5, 27) (date)."),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_file_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = config(tmp_path, text)
    assert run(["scan", str(NO_FACE), "--config", path]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"deepscan: {path}: {says}")
    assert said.endswith(".\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read (No such file"), (b"a = ", "is not valid TOML ("), (b"\xff", "is not valid TOML (")],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "c").write_bytes(content)
    assert run(["scan", str(NO_FACE), "--config", str(tmp_path / "c")]) == 2
    assert f"deepscan: --config {tmp_path}/c {says}" in capsys.readouterr().err


def test_a_name_that_is_no_text_cannot_be_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["scan", "--trace", os.fsdecode(b"\xff"), "--show-config"]) == 2
    assert "trace is not valid text" in capsys.readouterr().err


def test_wrong_usage_leaves_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    for wrong in (["--clips", "2"], ["--model", "none.onnx"], ["--frames", "0"]):
        assert run(["scan", str(NO_FACE), "--log", str(log), *wrong]) in (2, 3)
        assert not log.exists()
    assert "deepscan: " in capsys.readouterr().err


def test_options_are_given_as_a_struct_as_keywords_or_both() -> None:
    options = ScanOptions(sampling="quick", frames=3)
    running = deepscan.scan(NO_FACE, options, frames=4, include="*.mp4")
    assert running.plan.inputs
    with pytest.raises(deepscan.UsageError, match=r"^options must be made with deepscan\.ScanOptions"):
        deepscan.scan(NO_FACE, {"frames": 3})  # type: ignore[arg-type]
    with pytest.raises(deepscan.UsageError, match=r"^frames must be"):
        deepscan.scan(NO_FACE, options, frames=0)
    with pytest.raises(TypeError, match="frmaes"):
        deepscan.scan(NO_FACE, frmaes=3)  # type: ignore[call-arg]


def test_options_reach_another_process_as_they_are() -> None:
    options = ScanOptions(model=os.fsdecode(b"\xff.onnx"), include=("\udcfe",), limits=Limits(seconds=1.5, tracks=None))
    assert ScanOptions.from_json(options.to_json()) == options
    assert structs.replace(options, mirror=True) != options
