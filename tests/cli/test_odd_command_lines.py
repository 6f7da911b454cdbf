"""Odd numbers, streams and surroundings: one sentence, the documented exit code, and never a traceback."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepscan import scan
from deepscan.cli import interrupts, running, streams
from deepscan.cli.interrupts import interruptible
from deepscan.cli.running import run
from deepscan.errors import UsageError
from deepscan.limits import OPTIONS, Limits
from deepscan.runtime.store import outputs
from tests.cli.console import DEEPSCAN, ENVIRONMENT
from tests.footage import ASTRONAUT, NO_FACE

HUGE = "99999999999999999999"
WHOLE = "--frames --clips --detect-every --min-face --jobs --memory --max-file-size --max-pixels --max-frames "
WHOLE += "--max-streams --max-faces --max-tracks"
REAL = ("--timeout", "--max-duration", "--threshold")
FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_signals", [])
    monkeypatch.setenv(running.DEBUG_VARIABLE, "")  # so that what a test sets is taken back
    monkeypatch.setattr("threading.excepthook", lambda _: None)


def assert_refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert run(arguments) == code, arguments
    said = capsys.readouterr()
    assert said.out == "", arguments
    assert said.err.startswith("deepscan: "), arguments
    assert said.err.endswith(".\n"), arguments
    assert said.err.count("\n") == 1, arguments
    return said.err


def test_numbers_outside_their_range_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "r.csv")]
    for option in WHOLE.split():
        for value in (HUGE, "-1", "1.5", "9" * 5000):
            assert_refused(["scan", str(NO_FACE), option, value, *out], capsys)
    for option in REAL:
        for value in ("nan", "inf", "-inf", "1e308", HUGE):
            assert_refused(["scan", str(NO_FACE), option, value, *out], capsys)
    for line in (
        ["bench", "lite", "--threads", HUGE],
        ["bench", "lite", "--batch", HUGE],
        ["bench", "lite", "--batch", "9" * 5000],
        ["bench", "lite", "--seconds", "inf"],
        ["bench", "lite", "--seconds", "nan"],
        ["export", "lite", "--seed", HUGE],
        ["export", "lite", "--calibration-items", HUGE],
        ["export", "lite", "--workspace", HUGE],
        ["export", "lite", "--engine", "tensorrt", "--max-batch", HUGE],
        ["weights", "random", "ftcn", "--seed", HUGE],
        ["scan", str(NO_FACE), "--out", "a" * 251],
        ["scan", str(NO_FACE), "--out", "a" * 300 + ".csv"],
    ):
        assert_refused(line, capsys)
    assert os.listdir(tmp_path) == []


def test_what_is_wrong_with_a_value_is_said_to_its_user(capsys: pytest.CaptureFixture[str]) -> None:
    for option, value, says in (
        ("--frames", "1.5", "it must be a whole number"),
        ("--threshold", "x", "it must be a number"),
        ("--sampling", "x", "'x' is not one of 'full', 'quick', 'paper'"),
    ):
        said = assert_refused(["scan", str(NO_FACE), option, value], capsys)
        assert said == f"deepscan: Invalid value for '{option}': {says}; see `deepscan scan --help`.\n"
    said = assert_refused(["weights", "random", "lite", "--seed", "-1"], capsys)
    assert said == "deepscan: --seed must be a whole number from 0 to 9,223,372,036,854,775,807, not -1.\n"


def test_results_do_not_go_where_a_stream_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outputs, "DEVICES", [str(tmp_path)])
    said = assert_refused(["scan", str(NO_FACE), "--out", str(tmp_path / "stdout")], capsys)
    assert "is a device or a pipe: let --out name a file, or use - for stdout" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["frames", "clips", "detect_every", "min_face", "jobs", "memory"])
@pytest.mark.parametrize("value", [10**30, 2**63, 0, -1, 1.5, True, float("nan")])
def test_the_api_refuses_the_same_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be a whole number from 1 to "):
        scan(NO_FACE, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, -1.0, 0.0])
def test_the_api_refuses_the_same_times(value: float) -> None:
    with pytest.raises(UsageError, match=r"^timeout must be a number more than 0"):
        scan(NO_FACE, timeout=value)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 10**30])
def test_limits_have_limits(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^limits\.{name} must be a "):
        Limits(**{name: value})  # type: ignore[arg-type]


class Ends:
    """Stands in for the commands: ends with an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, **_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("a\nb"), 70, "ValueError: a: deepscan did not expect this; DEEPSCAN_DEBUG=1 shows where"),
        (RecursionError("deep"), 70, "RecursionError: deep: "),
        (MemoryError(), 70, "The memory is full: "),
        (OSError(errno.ENOSPC, "No space left", "f"), 3, "f cannot be used (No space left)"),
        (OSError(errno.EBADF, "Bad"), 70, "OSError: "),
        (streams.StdoutError(errno.ENOSPC, "Full"), 3, "stdout cannot be written (Full)"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (BrokenPipeError(), 141, ""),
        (SystemExit(5), 5, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_ends_a_command_is_one_line_and_a_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deepscan.cli.app.app", Ends(error))
    assert run([]) == code
    line = capsys.readouterr().err
    assert line.startswith(f"deepscan: {said}" if said else "")
    assert line.count("\n") == bool(said)
    if code == 70:
        assert run(["scan", "--debug"]) == code
        assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_that_a_library_turned_into_another_error_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deepscan.cli.app.app", Ends(ImportError("numpy")))
    monkeypatch.setattr(interrupts, "_signals", [signal.SIGINT])
    assert run([]) == 130
    assert capsys.readouterr().err == "deepscan: Interrupted.\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_lacks_is_drawn_with_what_it_has(encoding: str) -> None:
    codecs.register_error(streams.LEGIBLE, streams._legible)
    assert "▁█ ─ é 人".encode(encoding, streams.LEGIBLE).decode(encoding)[:5] == "18 - "
    assert "人".encode(encoding, streams.LEGIBLE) == b"\\u4eba"


SCRIPT = """
import os, signal, subprocess, sys
deepscan, video = sys.argv[1:]
full = open("/dev/full", "wb")
def ran(*words, before=None, env=None, **streams):
    streams.setdefault("stderr", subprocess.PIPE)
    streams.setdefault("stdout", subprocess.DEVNULL)
    child = subprocess.run([deepscan, *words], preexec_fn=before, env={**os.environ, **(env or {})}, **streams)
    print(child.returncode, repr((child.stderr or b"").decode()))
def closed(number):
    return lambda: os.close(number)
def gone():
    os.mkdir("gone"); os.chdir("gone"); os.rmdir(os.path.abspath("."))
"""


INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == {!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
from deepscan.cli.main import main
sys.argv = ["deepscan", "models"]
main()
"""


def outcomes(lines: str, folder: Path) -> list[tuple[int, str]]:
    """Run odd commands, one after the other; return exit codes and what was said."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + lines, DEEPSCAN, str(NO_FACE)],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ | ENVIRONMENT,
    )
    pairs = (line.split(" ", 1) for line in done.stdout.splitlines())
    found = [(int(code), str(eval(said))) for code, said in pairs]
    assert [said for _, said in found if "Traceback" in said or "Exception" in said] == []
    return found


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_streams_that_are_closed_or_full(tmp_path: Path) -> None:
    found = outcomes(
        "ran('--version', before=closed(1))\n"
        "ran('--version', stdout=full)\n"
        "ran('--help', before=closed(1))\n"
        "ran('weights', 'list', stdout=full)\n"
        "ran('--nosuch', stderr=full)\n"
        "ran('--nosuch', before=closed(2))\n"
        "ran('scan', '--from-file', '-', before=closed(0))\n"
        "reader, writer = os.pipe(); os.close(reader)\n"
        "ran('--version', stdout=writer)\n",
        tmp_path,
    )
    assert [code for code, _ in found] == [3, 3, 3, 3, 2, 2, 2, 141]
    assert all(said.count("\n") == (code in (2, 3) and place not in (4, 5)) for place, (code, said) in enumerate(found))


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
def test_a_full_stderr_costs_no_result_and_no_exit_code(tmp_path: Path) -> None:
    found = outcomes("ran('scan', video, '--frames', '2', '--stats', stderr=full)", tmp_path)
    assert found == [(0, "")]
    assert (tmp_path / "results.csv").exists()


def test_a_working_folder_that_was_deleted(tmp_path: Path) -> None:
    ((code, said),) = outcomes("ran('scan', 'a.mp4', before=gone)", tmp_path)
    assert (code, said.count("\n")) == (3, 1)
    assert "working folder was deleted" in said


def test_results_are_shown_in_any_encoding(tmp_path: Path) -> None:
    record = tmp_path / "results.jsonl"
    subprocess.run([DEEPSCAN, "scan", str(ASTRONAUT), "--frames", "2", "-q"], cwd=tmp_path, check=True)
    for variables in ({"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        shown = subprocess.run(
            [DEEPSCAN, "show", str(record), str(ASTRONAUT)],
            capture_output=True,
            check=False,
            env={**os.environ, **ENVIRONMENT, **variables},
        )
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert b"\\u" not in shown.stdout


def test_an_interrupt_that_a_library_swallowed_ends_the_scan_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_signals", [signal.SIGINT])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: None, quiet=True):
        pytest.fail("the scan began")
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("width", ["0", "00", "-5", "x", "", "²", "9" * 5000])
def test_a_width_that_is_none_is_not_taken(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert run(["models"]) == 0
    assert "lite" in capsys.readouterr().out


def test_an_interrupt_while_the_commands_are_loaded_ends_at_once() -> None:
    """The signal is sent from inside an import, which is the place that a clock would have to hit."""
    for module in ("typer", "deepscan.cli.app", "rich.console", "deepscan.models.registry"):
        ran = subprocess.run(
            [sys.executable, "-c", INTERRUPTED_IMPORT.format(module)], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 130, ran.stderr
        assert ran.stderr in ("", "deepscan: Interrupted.\n")


def test_a_stream_that_is_a_tests_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    streams.prepare_streams()
    streams.silence_stdout()
    assert sys.stdout is mine
